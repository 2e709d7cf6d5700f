"""NeuMiss as a masked leaky network: a flow that rests at the conditional mean of a Gaussian.

The iteration h ← m ⊙ (S h) + m ⊙ (x − x̄) is explicit Euler with c·dt = 1 of

    ḣ = c (−h + m ⊙ (S h) + m ⊙ (x − x̄)).

With S = I − Σ and Σ_oo positive definite (o: observed, mis: missing) its rest state is h_o = Σ_oo⁻¹ (x_o − x̄_o),
h_mis = 0, and E[x_mis | x_o] = x̄_mis + Σ_mis,o h_o for a Gaussian of mean x̄ and covariance Σ. The flow converges for
every such Σ, the iteration only if also λ_max(Σ_oo) < 2. Unlike the neurons of :mod:`nlsim.systems.masked.dynamics`,
the mask gates what a unit says as well as what it hears: that is what lets inputs stand in for each other.

References
----------
Le Morvan et al., *NeuMiss networks*, NeurIPS 2020; the flow is derived here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Fraction, Inputs
from nlsim.systems.backprop import required_input
from nlsim.systems.masked.check import check_inputs_mask, check_speed
from nlsim.systems.masked.dynamics import fraction_channel, shown_mask
from nlsim.systems.masked.layer import gate


@dataclass(frozen=True, eq=False)
class NeuMissFlow:
    """The flow; its state is the tensor h of shape ``(..., sample, input)``.

    Parameters
    ----------
    coupling : Tensor
        S, shape ``(..., input, input)``.
    mean : Tensor
        x̄, shape ``(..., input)``.
    speed : float
        c > 0 in 1/time.

    Raises
    ------
    NlsimError
        When the speed is not above 0.
    """

    coupling: Tensor
    mean: Tensor
    speed: float = 1.0

    def __post_init__(self) -> None:
        check_speed(self.speed)

    def target(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return m ⊙ (S h) + m ⊙ (x − x̄): one iteration. Cost: a matrix product with S."""
        mask = shown_mask(inputs)
        return gate(state @ self.coupling.mT, mask) + self.deviation(inputs)

    def deviation(self, inputs: Inputs) -> Tensor:
        """Return m ⊙ (x − x̄), shape ``(..., sample, input)``; missing slots may hold anything."""
        return gate(required_input(inputs) - self.mean.unsqueeze(-2), shown_mask(inputs))

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return c (target − h)."""
        return self.speed * (self.target(state, inputs) - state)

    def rates(self, state: Tensor) -> Tensor:
        """Return c."""
        return torch.as_tensor(self.speed, dtype=state.dtype, device=state.device)

    def sweep_(self, t: float, state: Tensor, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Let every unit close a fraction f of the gap to its target at the old state: of order 1.

        It is the iteration, damped: h ← (1 − f) h + f target, which with S = I − Σ converges iff f λ_max(Σ_oo) < 2.
        """
        state.lerp_(self.target(state, inputs), fraction(self.rates(state) * dt))

    def slow_rate(self) -> float:
        """Return 0: every unit is fast."""
        return 0.0

    def fastest_rate(self) -> float:
        """Return c max(1, ‖I − S‖₂), which no mask exceeds."""
        identity = torch.eye(self.coupling.shape[-1], dtype=self.coupling.dtype, device=self.coupling.device)
        return self.speed * max(1.0, float(torch.linalg.matrix_norm(identity - self.coupling, 2).max()))

    def hardest_mode(self) -> tuple[NeuMissFlow, Tensor, Inputs]:
        """Return ḣ = c (−h + (1 − r/c) h), r being the fastest rate: one unit that acts on itself, from h = 1.

        With S = I − Σ the modes of the flow are ḣ = c (−h + (1 − λ) h), λ an eigenvalue of Σ_oo, or 1 of a missing
        unit; under a soft mask they lie in between. A sweep that closes the fraction f multiplies a mode by 1 − f λ,
        between 1 and its value at the largest λ, which decides.
        """
        alone = self.coupling.new_full((1, 1), 1.0 - self.fastest_rate() / self.speed)
        mode = NeuMissFlow(alone, alone.new_zeros(1), self.speed)
        return mode, torch.ones_like(alone), Inputs(torch.zeros_like(alone))

    def initial_state(self, inputs: Inputs) -> Tensor:
        """Return m ⊙ (x − x̄), from where the iteration starts.

        Raises
        ------
        NlsimError
            When the inputs have a mask with NaN or outside [0, 1]; later ones are not looked at.
        """
        check_inputs_mask(inputs)
        return self.deviation(inputs)

    def equilibrium(self, inputs: Inputs) -> Tensor:
        """Return the rest state, (I − diag(m) S) h = m ⊙ (x − x̄). Cost: one LU factorisation, 2p³/3, a sample."""
        seen = self.deviation(inputs)
        mask = shown_mask(inputs).expand(seen.shape).to(seen.dtype)
        identity = torch.eye(seen.shape[-1], dtype=seen.dtype, device=seen.device)
        matrix = identity - mask.unsqueeze(-1) * self.coupling.unsqueeze(-3)
        solved: Tensor = torch.linalg.solve(matrix, seen.unsqueeze(-1)).squeeze(-1)
        return solved

    def completed(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return x where it is observed (m > 0), and x̄ + (I − S) h where it is missing.

        At the rest state of S = I − Σ that is the conditional mean.
        """
        guess = self.mean.unsqueeze(-2) + state - state @ self.coupling.mT
        return torch.where(shown_mask(inputs) > 0, required_input(inputs), guess)

    def observables(self) -> Mapping[str, Observable]:
        """Return the state, the inputs with what it says of the missing ones, and the observed fraction."""
        seen = (
            Observable("activity", ("sample", "input"), "state h of the units", lambda t, s, i: s),
            Observable(
                "completed", ("sample", "input"), "inputs, missing ones inferred", lambda t, s, i: self.completed(s, i)
            ),
            fraction_channel(),
        )
        return {each.name: each for each in seen}


def gaussian_conditioning(covariance: Tensor, mean: Tensor, speed: float = 1.0) -> NeuMissFlow:
    """Return the flow with S = I − Σ, whose rest state is the conditional mean of a Gaussian.

    Parameters
    ----------
    covariance : Tensor
        Σ, shape ``(..., input, input)``, positive definite; scaled to λ_max < 2/(c·dt), explicit Euler converges too.
    mean : Tensor
        x̄, shape ``(..., input)``.
    speed : float
        c > 0 in 1/time.
    """
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return NeuMissFlow(identity - covariance, mean, speed)
