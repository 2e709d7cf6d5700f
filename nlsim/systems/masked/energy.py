"""Energy-based neurons behind a mask.

With activation ϱ, symmetric V, contributions C_ij = W_ij u_j + b_i/p and a mask m that enters linearly,

    E(s; u, m) = ½‖s‖² − ½ ϱ(s)ᵀ V ϱ(s) − ϱ(s)ᵀ C m,       ṡ = −c ∂E/∂s = c (−s + ϱ'(s) ⊙ (V ϱ(s) + C m)),
    ∂E/∂m_j = −Σ_i ϱ(s_i) C_ij.

A missing input takes its interaction and its share of the bias away. Along the flow, u being held,

    dE/dt = −‖ṡ‖²/c + Σ_j ṁ_j ∂E/∂m_j,     ΔE = Σ_j Δm_j ∂E/∂m_j where the mask jumps:

E decreases between two changes of the mask, and only there.

**How long a step may be.** With D = diag(ϱ'(s)), a = V ϱ(s) + C m and P_o the projection on the nudged neurons

    ∂²E/∂s² = 1 + β P_o − D V D − diag(ϱ''(s_i) a_i).

Let L = sup |ϱ'|, B = sup |ϱ''|, R = sup |ϱ|, |u_j| ≤ û_j. As 0 ≤ m_j ≤ 1 and μ ≤ 1, no eigenvalue exceeds

    Λ = 1 + max(0, β) + L² max(0, −λ_min(V)) + B max_i (R Σ_j |V_ij| + Σ_j |W_ij| û_j + |b_i|),

since xᵀ D V D x ≥ min(0, λ_min(V)) L² ‖x‖². A step of explicit Euler is one of gradient descent of length c·dt on a
function whose curvature is at most Λ, and so ΔE ≤ −c·dt (1 − c·dt Λ/2) ‖∂E/∂s‖²: E never rises where c Λ·dt ≤ 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.activation import Activation
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.masked.check import check_inputs_mask, check_speed
from nlsim.systems.masked.dynamics import fraction_channel, shown_mask
from nlsim.systems.masked.layer import gate, masked_affine, observed_fraction
from nlsim.systems.masked.shares import check_shares


@dataclass(frozen=True, eq=False)
class MaskedEnergy:
    """The gradient flow of the energy; its state is the tensor s of shape ``(..., sample, n)``.

    Parameters
    ----------
    weight : Tensor
        W, shape ``(..., n, input)``.
    recurrent : Tensor
        V = Vᵀ, shape ``(..., n, n)``.
    activation : Activation
        ϱ. With ReLU s = 0 is at rest whatever is seen, its slope there being 0: start elsewhere.
    bias : Tensor or None
        b, shape ``(..., n)``.
    speed : float
        c > 0 in 1/time.
    nudge : float
        β: adds β ½‖s_o − z‖² to the energy, o being the last neurons, as many as the target z has entries; 0 leaves
        them free. Finite and above −1, else E has no minimum.
    shares : Tensor or None
        π, shape ``(input,)``, ≥ 0 with sum 1; 1/p each by default.
    largest_input : Tensor or None
        û ≥ |u|, shape ``(input,)``: the largest inputs for which :meth:`fastest_rate` holds; 0 by default.

    Raises
    ------
    NlsimError
        When V is not symmetric (then there is no such energy), the speed is not above 0, the nudge is not above −1, or
        shares are none.

    References
    ----------
    The energy without masks: Scellier and Bengio, *Equilibrium Propagation*, Front. Comput. Neurosci. 11 (2017);
    what a mask does to it is derived here.
    """

    weight: Tensor
    recurrent: Tensor
    activation: Activation
    bias: Tensor | None = None
    speed: float = 1.0
    nudge: float = 0.0
    shares: Tensor | None = None
    largest_input: Tensor | None = None

    def __post_init__(self) -> None:
        if not torch.equal(self.recurrent, self.recurrent.mT):
            raise NlsimError(
                "Neurons have an energy only where they act on each other alike.",
                where="recurrent",
                given=f"|V − Vᵀ| up to {float((self.recurrent - self.recurrent.mT).abs().max()):.3g}",
                allowed="V = Vᵀ, to the bit",
                advice="Use (V + Vᵀ)/2, or MaskedNeuron.",
            )
        check_speed(self.speed)
        if not -1.0 < self.nudge < math.inf:
            raise NlsimError(
                "A nudge of −1 or less leaves the energy without a minimum.",
                where="nudge",
                given=self.nudge,
                allowed="finite numbers > −1",
            )
        if self.shares is not None:
            check_shares(self.shares, self.weight.shape[-1])

    def drive(self, inputs: Inputs) -> Tensor:
        """Return C m, shape ``(..., sample, n)``. Cost: a matrix product with W."""
        return masked_affine(required_input(inputs), shown_mask(inputs), self.weight, self.bias, shares=self.shares)

    def energy(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return E of each sample, shape ``(..., sample)``; the flow decreases it while the inputs are held."""
        rho = self.activation.value(state)
        inner = 0.5 * (rho @ self.recurrent) + self.drive(inputs)
        total = 0.5 * state.square().sum(-1) - (rho * inner).sum(-1)
        if self.nudge == 0.0:
            return total
        return total + 0.5 * self.nudge * self._miss(state, inputs).square().sum(-1)

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return −c ∂E/∂s. Cost: a matrix product with W and one with V."""
        rho = self.activation.value(state)
        force = self.activation.slope(state, rho) * (rho @ self.recurrent + self.drive(inputs)) - state
        if self.nudge != 0.0:
            miss = self._miss(state, inputs)
            force = torch.cat([force[..., : -miss.shape[-1]], force[..., -miss.shape[-1] :] - self.nudge * miss], -1)
        return self.speed * force

    def fastest_rate(self) -> float:
        """Return c Λ: no mode of the linearised flow decays faster, whatever the state and the mask (see the module).

        Left out is what has no bound: the kink of ReLU, and the share R Σ_j |V_ij| of an unbounded ϱ that is curved
        (softplus) where V is not 0. Cost: the eigenvalues of V, once a run.
        """
        steepness, curvature = self.activation.steepness or 0.0, self.activation.curvature or 0.0
        lowest = float(torch.linalg.eigvalsh(self.recurrent).min())
        pulled = self.recurrent.abs().sum(-1) * (self.activation.bound or 0.0)
        if self.largest_input is not None:
            pulled = pulled + self.weight.abs() @ self.largest_input
        if self.bias is not None:
            pulled = pulled + self.bias.abs()
        bent = curvature * float(pulled.max())
        return self.speed * (1.0 + max(0.0, self.nudge) + steepness**2 * max(0.0, -lowest) + bent)

    def mask_gradient(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return ∂E/∂m_j = −Σ_i ϱ(s_i)(W_ij u_j + π_j b_i), shape ``(..., sample, input)``.

        It speaks of the value u_j in the slot, and so is meaningless where a missing slot holds nothing.
        """
        rho, given = self.activation.value(state), required_input(inputs)
        found = -(rho @ self.weight) * given
        if self.bias is None:
            return found
        level = (rho * self.bias.unsqueeze(-2)).sum(-1, keepdim=True)
        return found - (level / given.shape[-1] if self.shares is None else level * self.shares)

    def mask_jump(self, state: Tensor, inputs: Inputs, mask: Tensor) -> Tensor:
        """Return ΔE = Σ_j Δm_j ∂E/∂m_j where the mask jumps from that of the inputs to another, u being kept.

        Slots missing on both sides may hold anything. Shape ``(..., sample)``.
        """
        given = required_input(inputs)
        change = mask.to(given.dtype) - shown_mask(inputs).to(given.dtype)
        return self._along(change, state, inputs)

    def power(self, state: Tensor, inputs: Inputs, mask_slope: Tensor) -> Tensor:
        """Return dE/dt = −‖ṡ‖²/c + Σ_j ṁ_j ∂E/∂m_j along the flow, u and z being held; shape ``(..., sample)``."""
        lost = self.vector_field(0.0, state, inputs).square().sum(-1) / self.speed
        return self._along(mask_slope, state, inputs) - lost

    def energy_gradient(self, state: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return ∂E/∂W = −Σ_samples ϱ(s)(m ⊙ u)ᵀ and ∂E/∂b = −Σ_samples μ(m) ϱ(s); both 0 in a blackout."""
        rho, given, mask = self.activation.value(state), required_input(inputs), shown_mask(inputs)
        seen = gate(given, mask)
        fraction = observed_fraction(mask.expand(seen.shape), given.dtype, self.shares)
        return -(rho.mT @ seen), -(fraction * rho).sum(-2)

    def initial_state(self, inputs: Inputs) -> Tensor:
        """Return s = 0.

        Raises
        ------
        NlsimError
            When the inputs have a mask with NaN or outside [0, 1]; later ones are not looked at.
        """
        check_inputs_mask(inputs)
        return torch.zeros_like(self.drive(inputs))

    def neutral_curvature(self) -> Tensor:
        """Return ∂²E/∂s² at s = 0 without inputs, I − ϱ'(0)² V, given ϱ(0) = 0; shape of V.

        s = 0 is a non-degenerate minimum of a blackout where it is positive definite.
        """
        zero = self.recurrent.new_zeros(())
        slope = self.activation.slope(zero, self.activation.value(zero))
        identity = torch.eye(self.recurrent.shape[-1], dtype=self.recurrent.dtype, device=self.recurrent.device)
        return identity - slope.square() * self.recurrent

    def observables(self) -> Mapping[str, Observable]:
        """Return the state, its energy and the observed fraction; if nudged, how far it is from the target."""

        def distance(t: float, state: Tensor, inputs: Inputs) -> Tensor:
            return self._miss(state, inputs).square().sum(-1).sqrt()

        seen = [
            Observable("activity", ("sample", "neuron"), "state s of the neurons", lambda t, s, i: s),
            Observable("energy", ("sample",), "energy E of each sample", self.energy),
            fraction_channel(self.shares),
        ]
        if self.nudge != 0.0:
            seen.append(Observable("distance_to_target", ("sample",), "distance of s_o from the target z", distance))
        return {each.name: each for each in seen}

    def _along(self, change: Tensor, state: Tensor, inputs: Inputs) -> Tensor:
        slopes = self.mask_gradient(state, inputs)
        # a slot that the mask does not touch may hold NaN
        return torch.where(change == 0, 0.0, change * slopes).sum(-1)

    def _miss(self, state: Tensor, inputs: Inputs) -> Tensor:
        target = required_target(inputs)
        return state[..., -target.shape[-1] :] - target


def contrastive_gradient(
    free: MaskedEnergy, rest: Tensor, nudged: MaskedEnergy, pulled: Tensor, inputs: Inputs
) -> tuple[Tensor, Tensor]:
    """Return (∂E/∂(W, b) at the nudged rest − the same at the free rest) / (β_nudged − β_free).

    For β → 0 it is the gradient of ½‖s_o − z‖² at the free rest, summed over samples. Both parts are exactly 0 in a
    blackout.

    Parameters
    ----------
    free, nudged : MaskedEnergy
        The same neurons at two nudges.
    rest, pulled : Tensor
        Their rest states, shape ``(..., sample, n)``.
    inputs : Inputs
        At which they rest.

    Raises
    ------
    NlsimError
        When both have the same nudge.
    """
    if free.nudge == nudged.nudge:
        raise NlsimError(
            "A difference between two nudges needs two.",
            where="free, nudged",
            given=f"nudge = {nudged.nudge:g} in both",
            allowed="different nudges",
            advice="Take 0 and a small β, or −β and β, which is of second order.",
        )
    width = nudged.nudge - free.nudge
    before, after = free.energy_gradient(rest, inputs), nudged.energy_gradient(pulled, inputs)
    return (after[0] - before[0]) / width, (after[1] - before[1]) / width
