"""Implicit SGD itself, solved to round-off at every batch: what inference learning is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.batch import solve_by_duals
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.implicit_step import solve_in_activities
from nlsim.systems.inference.jumps import OnlyJumps, WeightState, weight_observables
from nlsim.systems.inference.learning import require_linear_output
from nlsim.systems.inference.proximal import ProximalProblem
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork


@dataclass(frozen=True)
class ImplicitSGD(OnlyJumps):
    """θ ← argmin_θ' L(θ') + ‖θ' − θ‖²/(2α), a local minimum downhill of θ, L the mean loss of the batch shown.

    One sample is solved for in its activities, where the step is Newton's on the free energy with exact precisions;
    several are solved for in dual variables, which take any batch. The certificate ‖θ' − θ + α∇L(θ')‖/‖θ' − θ‖ of
    each step is state, so it can be recorded: a step whose search failed is taken as it was found, and shows there.

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    loss : Loss
        ℓ.
    rate : float
        α > 0.

    Raises
    ------
    CapabilityError, NlsimError
        For an output that is not linear, a rate that is not positive, and ensemble axes.

    Notes
    -----
    Cost: cubic in the number of neurons for one sample; some hundred passes over the network for several. A reference
    for networks of some hundred neurons.

    References
    ----------
    Alonso, Millidge, Krichmar and Neftci, *A Theoretical Framework for Inference Learning*, NeurIPS 2022; Toulis and
    Airoldi, *Asymptotic and finite-sample properties of estimators based on stochastic gradients*, 2017.
    """

    network: LayeredNetwork
    loss: Loss
    rate: float

    def __post_init__(self) -> None:
        require_linear_output(self.network)
        self.problem()

    def problem(self) -> ProximalProblem:
        """Return the problem of a step."""
        return ProximalProblem(self.network, self.loss, self.rate)

    def initial_state(self, weights: Layers, inputs: Inputs) -> WeightState:
        """Return the weights, and a certificate of 0 before the first step."""
        if weights[0].ndim != 2:
            raise CapabilityError(
                "The implicit step is solved for one network at a time.",
                where="weights",
                given=f"weights of shape {tuple(weights[0].shape)}",
                allowed="weights without ensemble axes",
            )
        return WeightState(weights, (torch.zeros_like(weights[0][0, 0]),))

    def jump(self, t: float, state: WeightState, ended: Inputs, begun: Inputs) -> WeightState:
        """Return the state after an implicit step."""
        given, target = required_input(ended), required_target(ended)
        solve = solve_in_activities if given.shape[-2] == 1 else solve_by_duals
        with torch.enable_grad():  # the search differentiates an energy; what comes out is free of it
            step = solve(self.problem(), state.weight, given, target)
        (before,) = state.moment
        return WeightState(tuple(w.detach() for w in step.weights), (torch.full_like(before, step.residual),))

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss``, ``weight/l`` of every layer, and ``certificate`` of the last step."""

        def certificate(t: float, state: WeightState, inputs: Inputs) -> Tensor:
            return state.moment[0]

        text = "how far the last step is from an implicit one, relative to its length"
        return {
            **weight_observables(self.network, self.loss),
            "certificate": Observable("certificate", (), text, certificate),
        }
