"""Neurons in continuous time whose inputs come and go.

With external input u(t), mask m(t), its observed fraction μ(m) and W, b, w_c as in :mod:`nlsim.systems.masked.layer`,

    state form:      ẋ = c (−x + φ(D + V x + d)),      potential form:  v̇ = c (−v + D + V φ(v) + d),
    D = W(m ⊙ u) + μ(m) b + (1 − μ(m)) w_c.

The bias b belongs to the inputs and goes with them; the intrinsic bias d does not and is 0 by default, else nothing is
neutral. In a blackout (m = 0) without w_c the drive D is exactly 0 whatever W, b, u: the neuron *forgets*, x → φ(0) at
rate c. Multiplied by μ(m) the same field *holds*: it stands still in a blackout.

Neutralizers are gated, never injected: with synapses that filter or a bias that learns, an injected neutralizer
lags behind the bias that it has to cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Fraction, Inputs
from nlsim.errors import NlsimError
from nlsim.systems.activation import Activation
from nlsim.systems.backprop import required_input
from nlsim.systems.masked.check import check_inputs_mask, check_speed
from nlsim.systems.masked.layer import masked_affine, observed_fraction
from nlsim.systems.masked.shares import check_shares

Form = Literal["state", "potential"]
"""What the state is: the output x of a neuron, or its potential v with output φ(v)."""

Outage = Literal["forget", "hold"]
"""What a neuron does when it sees nothing."""


def shown_mask(inputs: Inputs) -> Tensor:
    """Return m(t), or ones where the inputs have none."""
    given = required_input(inputs)
    return torch.ones_like(given, dtype=torch.bool) if inputs.mask is None else inputs.mask


def seen_fraction(inputs: Inputs, shares: Tensor | None = None) -> Tensor:
    """Return μ(m) of the inputs, shape ``(..., sample, 1)``; exactly 1 where they have no mask."""
    given, mask = required_input(inputs), shown_mask(inputs)
    shape = torch.broadcast_shapes(given.shape, mask.shape)  # type: ignore[no-untyped-call]
    return observed_fraction(mask.expand(shape), given.dtype, shares)


def fraction_channel(shares: Tensor | None = None) -> Observable:
    """Return the channel of the observed fraction."""

    def fraction(t: float, state: object, inputs: Inputs) -> Tensor:
        return seen_fraction(inputs, shares).squeeze(-1)

    return Observable("observed_fraction", ("sample",), "observed fraction μ(m) of the inputs", fraction)


@dataclass(frozen=True, eq=False)
class MaskedNeuron:
    """A population of leaky neurons behind a mask; its state is the tensor x (or v) of shape ``(..., sample, n)``.

    Under held inputs and V = 0 the exponential sweep is exact in either design, and ``exponential_euler`` where neurons
    forget. Explicit Euler with V = 0 is stable iff c·dt < 2 and monotone iff c·dt ≤ 1.

    Parameters
    ----------
    weight : Tensor
        W, shape ``(..., n, input)``.
    activation : Activation
        φ.
    bias : Tensor or None
        b, shape ``(..., n)``: the bias that inputs share.
    recurrent : Tensor or None
        V, shape ``(..., n, n)``. With L the Lipschitz constant of φ, two states under the same inputs approach each
        other at rate c(1 − L‖V‖₂) or faster where L‖V‖₂ < 1; beyond, activity may sustain itself.
    intrinsic : Tensor or None
        d, shape ``(..., n)``: a bias that no mask touches.
    compensation : Tensor or None
        w_c, shape ``(..., n)``.
    speed : float or Tensor
        c > 0 in 1/time; a tensor broadcasts against the state.
    form : str
        ``"state"`` or ``"potential"``.
    outage : str
        ``"forget"``, or ``"hold"``: the field is multiplied by μ(m).
    shares : Tensor or None
        π, shape ``(input,)``, ≥ 0 with sum 1; 1/p each by default.

    Raises
    ------
    NlsimError
        When form or outage is none of the words, a speed is not above 0, or shares are none.

    References
    ----------
    The neuron: Kia et al., *PROMISSING*, 2022, arXiv:2206.01640; its continuous-time forms are derived here.
    """

    weight: Tensor
    activation: Activation
    bias: Tensor | None = None
    recurrent: Tensor | None = None
    intrinsic: Tensor | None = None
    compensation: Tensor | None = None
    speed: float | Tensor = 1.0
    form: Form = "state"
    outage: Outage = "forget"
    shares: Tensor | None = None

    def __post_init__(self) -> None:
        for where, given, allowed in (
            ("form", self.form, ("state", "potential")),
            ("outage", self.outage, ("forget", "hold")),
        ):
            if given not in allowed:
                raise NlsimError("This word is not known.", where=where, given=given, allowed=", ".join(allowed))
        check_speed(self.speed)
        if self.shares is not None:
            check_shares(self.shares, self.weight.shape[-1])

    def drive(self, inputs: Inputs) -> Tensor:
        """Return D, shape ``(..., sample, n)``; exactly 0 (or w_c) in a blackout. Cost: a matrix product with W."""
        return masked_affine(
            required_input(inputs),
            shown_mask(inputs),
            self.weight,
            self.bias,
            compensation=self.compensation,
            shares=self.shares,
        )

    def fraction(self, inputs: Inputs) -> Tensor:
        """Return μ(m), shape ``(..., sample, 1)``."""
        return seen_fraction(inputs, self.shares)

    def output(self, state: Tensor) -> Tensor:
        """Return what other neurons see: x, or φ(v)."""
        return state if self.form == "state" else self.activation.value(state)

    def pre_activation(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return a = D + V x + d, in potential form with φ(v) for x. Cost: a product with W and one with V."""
        total = self.drive(inputs)
        if self.recurrent is not None:
            total = total + self.output(state) @ self.recurrent.mT
        return total if self.intrinsic is None else total + self.intrinsic.unsqueeze(-2)

    def target(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return what the state relaxes to: φ(a), in potential form a."""
        a = self.pre_activation(state, inputs)
        return self.activation.value(a) if self.form == "state" else a

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return c (target − state), times μ(m) where neurons hold. Cost: that of the pre-activation."""
        rate = self.speed * (self.target(state, inputs) - state)
        return rate if self.outage == "forget" else self.fraction(inputs) * rate

    def rates(self, state: Tensor) -> Tensor:
        """Return c; where neurons hold, c μ(m) is at most that."""
        return torch.as_tensor(self.speed, dtype=state.dtype, device=state.device)

    def sweep_(self, t: float, state: Tensor, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Let every neuron close a fraction of the gap to its target at the old state.

        The rate is c, or c μ(m) where neurons hold. With V = 0 and held inputs ``1 − e^{−z}`` is the exact flow; the
        coupling V is taken from the old state, of order 1.
        """
        target = self.target(state, inputs)
        rate = self.rates(state)
        state.lerp_(target, fraction((rate if self.outage == "forget" else rate * self.fraction(inputs)) * dt))

    def slow_rate(self) -> float:
        """Return 0: every neuron is fast."""
        return 0.0

    def fastest_rate(self) -> float:
        """Return the largest c."""
        return float(self.speed.max()) if isinstance(self.speed, Tensor) else self.speed

    def neutral_state(self, inputs: Inputs) -> Tensor:
        """Return the rest state of a blackout without V, d and w_c: φ(0), in potential form 0."""
        potential = torch.zeros_like(self.drive(inputs))
        return self.activation.value(potential) if self.form == "state" else potential

    def initial_state(self, inputs: Inputs) -> Tensor:
        """Return the neutral state: nothing has been seen yet.

        Raises
        ------
        NlsimError
            When the inputs have a mask with NaN or outside [0, 1]; later ones are not looked at, for that would cost a
            pass and a wait for the device in every step.
        """
        check_inputs_mask(inputs)
        return self.neutral_state(inputs)

    def observables(self) -> Mapping[str, Observable]:
        """Return the state, the output, the pre-activation, the observed fraction and the distance to neutral."""

        def distance(t: float, state: Tensor, inputs: Inputs) -> Tensor:
            return (state - self.neutral_state(inputs)).square().sum(-1).sqrt()

        state_name = "activity" if self.form == "state" else "potential"
        seen = [
            Observable(state_name, ("sample", "neuron"), f"{state_name} of the neurons", lambda t, s, i: s),
            Observable("output", ("sample", "neuron"), "output of the neurons", lambda t, s, i: self.output(s)),
            Observable(
                "pre_activation",
                ("sample", "neuron"),
                "pre-activation a of the neurons",
                lambda t, s, i: self.pre_activation(s, i),
            ),
            fraction_channel(self.shares),
            Observable("distance_to_neutral", ("sample",), "distance of the state from the neutral one", distance),
        ]
        return {each.name: each for each in seen}
