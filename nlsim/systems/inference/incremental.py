"""Incremental inference learning: activities and weights descend the same free energy at the same time.

    dĥ_l/dt = −∂F/∂ĥ_l,    dW_l/dt = −η mean over samples of ∂F/∂W_l = η mean(γ_l e_l ã_{l−1}ᵀ).

There are no phases: F falls along the joint flow, dF/dt = −Σ‖∂F/∂ĥ‖² − (η/B) ‖∂F/∂W‖² for B samples, as long as
the input stands still, the precisions are constant or differentiated, and (so that F is what falls) neither hidden
precision depends on the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError
from nlsim.systems.inference.baselines import require_positive
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.learning import InferenceLearning, InferenceState, inference_observables
from nlsim.systems.inference.precision import Precision
from nlsim.systems.inference.update import LeastMeanSquares, energy_gradient
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, LayeredNetwork


@dataclass(frozen=True)
class IncrementalLearning:
    """The joint flow of activities and weights (iPC).

    Its Euler step of length τ is incremental expectation maximisation with activity step τ and weight step τη, both
    computed from the old state.

    Parameters
    ----------
    network : LayeredNetwork
        At least one layer; the last activation must be the identity.
    loss : Loss
        ℓ.
    precision : Precision
        γ_l; one that looks at the feedforward activities depends on the weights and is refused.
    output : str
        ``clamped``, ``free`` or ``settled``; see :mod:`nlsim.systems.inference.target`.
    rate : float or Tensor
        η > 0: how fast weights are, in units of the activities' rate.
    restarts : bool
        Whether the activities of a new sample begin at its forward pass; else they go on from where they are.

    Raises
    ------
    CapabilityError, NlsimError, UnknownNameError
        For an output that is not linear, an output or precision without a law of descent, and values out of range.

    References
    ----------
    Salvatori et al., *A Stable, Fast, and Fully Automatic Learning Algorithm for Predictive Coding Networks*, ICLR
    2024.
    """

    network: LayeredNetwork
    loss: Loss
    precision: Precision
    output: str
    rate: Constant
    restarts: bool = True

    def __post_init__(self) -> None:
        self._settling_system()  # refuses what inference learning refuses
        require_positive("rate", self.rate)
        if self.output == "heuristic" or self.precision.needs_feedforward:
            raise CapabilityError(
                "The joint flow descends an energy of activities and weights, and this choice has none.",
                where="output or precision",
                given=f"{self.output}, {self.precision}",
                allowed="outputs clamped, free, settled; precisions of the activities or constants",
            )

    def _settling_system(self) -> InferenceLearning:
        """Return the system with the same energy in which weights stand still."""
        return InferenceLearning(self.network, self.loss, self.precision, self.output, LeastMeanSquares(1.0))

    def initial_state(self, weights: Layers, inputs: Inputs) -> InferenceState:
        """Return the given weights and the activities of the forward pass."""
        return self._settling_system().initial_state(weights, inputs)

    def vector_field(self, t: float, state: InferenceState, inputs: Inputs) -> InferenceState:
        """Return dĥ/dt and dW/dt. Cost: four matrix products a layer."""
        flow = ActivityFlow(self.network, self.loss, self.precision, self.output, state.weight)
        seen = flow.settling(state.activity, inputs)
        slopes = energy_gradient(self.network, state.weight, seen)
        return InferenceState(
            flow.vector_field(t, state.activity, inputs),
            tuple(-self.rate * slope for slope in slopes),
            tuple(torch.zeros_like(m) for m in state.moment),
        )

    def jump(self, t: float, state: InferenceState, ended: Inputs, begun: Inputs) -> InferenceState:
        """Return the same weights, and activities at the forward pass of the new sample or as they are."""
        return self.initial_state(state.weight, begun) if self.restarts else state

    def energy(self, t: float, state: InferenceState, inputs: Inputs) -> Tensor:
        """Return the free energy summed over samples; shape: the ensemble axes. It falls while an input lasts."""
        return self._settling_system().energy(t, state, inputs)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``free_energy``, ``loss``, and ``activity/l``, ``error/l`` and ``weight/l`` of every layer."""
        return inference_observables(self._settling_system())
