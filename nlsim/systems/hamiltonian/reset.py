"""Sample-wise reset: Hamiltonian Learning that forgets its state, not its weights, at the end of each interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import unknown_name
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import Schedule
from nlsim.systems.hamiltonian.state_space import FORMS
from nlsim.systems.hamiltonian.transition import Tensors
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, LayeredNetwork


@dataclass(frozen=True)
class SampleReset:
    """Hamiltonian Learning that jumps to h = 0, z = 0 at the end of each interval (Melacci et al., eq. 22).

    With the residual speed 1/τ, intervals of τ and ordered Euler steps it is SGD with momentum.

    Parameters
    ----------
    learning : HamiltonianLearning
        What moves between the jumps.
    """

    learning: HamiltonianLearning

    def jump(self, t: float, state: LearningState, ended: Inputs, begun: Inputs) -> LearningState:
        """Return the state with h and z set to 0; θ and ω go on."""
        return replace(state, activity=_zeros(state.activity), costate=_zeros(state.costate))

    def initial_state(self, weights: Tensors, samples: int) -> LearningState:
        """Return the state at t = 0: h and all costates 0."""
        return self.learning.initial_state(weights, samples)

    def vector_field(self, t: float, state: LearningState, inputs: Inputs) -> LearningState:
        """Return the vector field of Hamiltonian Learning."""
        return self.learning.vector_field(t, state, inputs)

    def ordered_step(
        self, t: float, state: LearningState, inputs: Inputs, dt: float, *, moves_with_old: bool
    ) -> LearningState:
        """Return the ordered step of Hamiltonian Learning."""
        return self.learning.ordered_step(t, state, inputs, dt, moves_with_old=moves_with_old)

    def hamiltonian(self, t: float, state: LearningState, inputs: Inputs) -> Tensor:
        """Return the robust Hamiltonian."""
        return self.learning.hamiltonian(t, state, inputs)

    def fastest_rate(self) -> float:
        """Return the fastest rate of Hamiltonian Learning."""
        return self.learning.fastest_rate()

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of Hamiltonian Learning."""
        return self.learning.observables()


def build_learning(
    network: LayeredNetwork,
    loss: Loss,
    *,
    form: str,
    beta: Constant,
    eta: Constant,
    phi: Constant | Schedule,
    speed: Constant,
    regularisation: Constant = 0.0,
) -> SampleReset:
    """Return Hamiltonian Learning of a layered network, reset sample by sample, from its values in a scenario.

    Parameters
    ----------
    network, loss
        What is learned, and how badly it does.
    form : str
        ``"output"``: the network is passed in no time; ``"state"``: its output is the state; ``"layers"``:
        every layer is a part of the state.
    beta, eta, phi, regularisation
        As in :class:`~nlsim.systems.hamiltonian.robust.LearningConstants`.
    speed : float or Tensor
        c > 0 of every part of the state [1/time]; not used where there is none.

    Raises
    ------
    UnknownNameError
        For another form.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS, where="form")
    shaped = FORMS[form](network)
    constants = LearningConstants(beta, eta, phi, regularisation)
    return SampleReset(HamiltonianLearning(shaped, loss, constants, (speed,) * len(shaped.widths)))


def _zeros(tensors: Tensors) -> Tensors:
    return tuple(torch.zeros_like(each) for each in tensors)
