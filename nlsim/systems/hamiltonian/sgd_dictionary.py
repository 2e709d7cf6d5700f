"""The dictionary between gradient descent, Hamiltonian Learning and the costate-only reversal.

With gradients summed over samples, a step τ of Hamiltonian Learning whose weights move with the new ω is
(Melacci et al., eq. 20–23)

    ω ← (1 − τη) ω + τφ g,    θ ← θ − τβ ω,

which is SGD with buffer ω as torch writes it:

=======================  ==================
learning rate γ          βτ
momentum μ               1 − τη
dampening ρ              1 − τφ
weight decay             k
=======================  ==================

torch's first step is not damped, so neither is ours: φ = 1/τ in the first step alone. Without momentum
torch keeps no buffer and ignores dampening.

In the other direction Hamiltonian Learning of a layered state is the costate-only reversal (Betti & Gori,
eq. 18) with h = x, z = p_x/φ, ω = p_w/φ, β = 1/(m c), η = θ, φ_HL L = c ℓ, s = −1; states are the same
:class:`~nlsim.systems.hamiltonian.problem.LearningState`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from nlsim.errors import CapabilityError, NlsimError
from nlsim.systems.hamiltonian.problem import LearningProblem, align
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import FirstStep
from nlsim.systems.hamiltonian.state_space import layered_form
from nlsim.systems.hamiltonian.transition import LayeredTransition
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, LayeredNetwork


@dataclass(frozen=True)
class SGDSettings:
    """Settings of torch.optim.SGD, without Nesterov's variant, which has no counterpart here.

    Parameters
    ----------
    learning_rate : float
        γ.
    momentum : float
        μ in [0, 1].
    dampening : float
        ρ < 1.
    weight_decay : float
        k ≥ 0.
    """

    learning_rate: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0


def from_sgd(
    learning_rate: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    *,
    tau: float,
    weight_decay: float = 0.0,
) -> LearningConstants:
    """Return the constants with which steps τ of Hamiltonian Learning are steps of SGD.

    Parameters
    ----------
    learning_rate : float
        γ > 0.
    momentum : float
        μ in [0, 1].
    dampening : float
        ρ < 1; 0 without momentum, where torch ignores it.
    tau : float
        τ > 0, length of a step [time].
    weight_decay : float
        k ≥ 0.

    Returns
    -------
    LearningConstants
        β = γ/τ, η = (1 − μ)/τ, φ = (1 − ρ)/τ, with φ = 1/τ in the step that begins at 0.

    Raises
    ------
    NlsimError
        For a setting out of range.
    """
    _positive("learning_rate", learning_rate)
    _positive("tau", tau)
    if not 0.0 <= momentum <= 1.0:
        raise NlsimError(
            "There is no dissipation η ≥ 0 for this momentum.", where="momentum", given=momentum, allowed="0 to 1"
        )
    if not (dampening < 1.0 and math.isfinite(dampening)):
        raise NlsimError(
            "There is no loss weight φ > 0 for this dampening.", where="dampening", given=dampening, allowed="below 1"
        )
    if momentum == 0.0 and dampening != 0.0:
        raise NlsimError(
            "Dampening does nothing without momentum.",
            where="dampening",
            given=dampening,
            allowed="0 where momentum is 0",
            advice=f"torch ignores it; for a smaller step choose learning_rate = {learning_rate * (1 - dampening):g}.",
        )
    if not 0.0 <= weight_decay < math.inf:
        raise NlsimError("The weight decay is out of range.", where="weight_decay", given=weight_decay, allowed="≥ 0")
    full, damped = 1.0 / tau, (1.0 - dampening) / tau
    phi = full if dampening == 0.0 else FirstStep(full, damped, tau)
    return LearningConstants(learning_rate / tau, (1.0 - momentum) / tau, phi, weight_decay)


def to_sgd(constants: LearningConstants, tau: float) -> SGDSettings:
    """Return the settings of SGD whose steps are the steps τ of Hamiltonian Learning.

    Parameters
    ----------
    constants : LearningConstants
        β > 0, 0 ≤ η ≤ 1/τ and φ; plain numbers. φ is 1/τ in the first step, or at all times; where
        η = 1/τ (no momentum) it may be any positive number, and scales the learning rate.
    tau : float
        τ > 0, length of a step [time].

    Raises
    ------
    NlsimError
        For constants that no SGD has.
    """
    _positive("tau", tau)
    beta, eta, phi, decay = constants.beta, constants.eta, constants.phi, constants.regularisation
    if isinstance(beta, Tensor) or isinstance(eta, Tensor) or isinstance(phi, Tensor) or isinstance(decay, Tensor):
        raise NlsimError(
            "The settings of SGD are numbers; an ensemble has one a member.",
            where="constants",
            given="a tensor",
            allowed="plain numbers",
            advice="Translate each member for itself.",
        )
    _positive("constants.beta", beta)
    momentum = 1.0 - tau * eta
    if not -1e-12 <= momentum <= 1.0:
        raise NlsimError(
            "No momentum in [0, 1] has this dissipation.",
            where="constants.eta",
            given=eta,
            allowed=f"0 to 1/τ = {1 / tau:g}",
            advice="Take a smaller step.",
        )
    if abs(momentum) <= 1e-12:  # η = 1/τ to rounding
        if not isinstance(phi, float | int):
            raise _not_a_first_step(phi, tau, "one number: without momentum there is no undamped first step")
        return SGDSettings(beta * tau * (tau * phi), weight_decay=decay)
    if isinstance(phi, FirstStep) and _is_close(phi.first * tau, 1.0) and _is_close(phi.tau, tau):
        return SGDSettings(beta * tau, momentum, 1.0 - tau * phi.later, decay)
    if isinstance(phi, float | int) and _is_close(phi * tau, 1.0):
        return SGDSettings(beta * tau, momentum, 0.0, decay)
    raise _not_a_first_step(phi, tau, f"1/τ = {1 / tau:g} in the first step")


def from_learning_problem(problem: LearningProblem[LayeredNetwork]) -> HamiltonianLearning:
    """Return Hamiltonian Learning whose vector field is that of the costate-only reversal of a problem.

    β = 1/(m c), η = θ, φ = c, k; every layer is a part of the state and keeps its speed c_l.
    """
    c, mass = problem.mean_speed, problem.mass
    constants = LearningConstants(1.0 / (mass * c), problem.dissipation, c, problem.regularisation)
    return HamiltonianLearning(layered_form(problem.network), problem.loss, constants, problem.speed)


def to_learning_problem(learning: HamiltonianLearning) -> LearningProblem[LayeredNetwork]:
    """Return the problem whose costate-only reversal has the vector field of Hamiltonian Learning.

    m = 1/(β c), θ = η, ℓ = (φ/c)(L + k|θ|²/2), c being the mean of the speeds over neurons.

    Raises
    ------
    CapabilityError
        Unless every layer is a part of the state, the output is the last, and φ and all speeds are constant.
    """
    transition = learning.network.transition
    if not isinstance(transition, LayeredTransition) or learning.network.readout is not None:
        raise CapabilityError(
            "Only a network whose layers are the parts of the state has neurons with a propagation speed.",
            where="learning.network",
            given=type(transition).__name__ + (" and a readout" if learning.network.readout else ""),
            allowed="layered_form(network)",
        )
    speeds, phi = tuple(_constant(c, "learning.speed") for c in learning.speed), learning.constants.phi
    phi = _constant(phi, "learning.constants.phi")
    scaled = LearningProblem(transition.network, learning.loss, speeds, math.inf, learning.constants.eta)
    c, beta = scaled.mean_speed, learning.constants.beta
    is_still = not isinstance(beta, Tensor) and beta == 0
    mass = math.inf if is_still else 1.0 / (beta * c)
    ratio = phi / c
    is_one = not isinstance(ratio, Tensor) and ratio == 1.0
    loss = learning.loss if is_one else _scaled(learning.loss, ratio)
    return LearningProblem(
        transition.network, loss, speeds, mass, learning.constants.eta, learning.constants.regularisation * ratio
    )


def _scaled(loss: Loss, factor: Constant) -> Loss:
    """Return factor · L."""
    by_sample = factor[..., None] if isinstance(factor, Tensor) and factor.ndim else factor
    return Loss(loss.name, lambda x, z: by_sample * loss.value(x, z), lambda x, z: align(factor) * loss.gradient(x, z))


def _constant(value: object, where: str) -> Constant:
    if isinstance(value, float | int | Tensor):
        return value
    raise CapabilityError(
        "The constants of a learning problem do not change in time.",
        where=where,
        given=value,
        allowed="a number, or a tensor with the ensemble axes",
    )


def _positive(where: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise NlsimError("The value must be positive and finite.", where=where, given=value, allowed="> 0")


def _is_close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-12)


def _not_a_first_step(phi: object, tau: float, allowed: str) -> NlsimError:
    return NlsimError(
        "torch's SGD has no such loss weight.",
        where="constants.phi",
        given=phi,
        allowed=allowed,
        advice=f"Its buffer starts undamped: use FirstStep({1 / tau:g}, phi, {tau:g}).",
    )
