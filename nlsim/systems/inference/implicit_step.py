"""Solvers of the proximal problem to round-off: in the activities, in the weights, and along a branch in α.

They are references, for networks of up to some hundred unknowns, against which inference learning is measured. The
activities are fewer than the weights, so that solver is the cheaper one; the other needs no theorem to be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.func import grad

from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers, feedforward
from nlsim.systems.inference.minimum import Minimum, MinimumEnding, minimise
from nlsim.systems.inference.proximal import ProximalProblem, certificate

ACCEPTED = 1e-10
"""Certificate up to which a step counts as implicit."""


@dataclass(frozen=True, eq=False)
class ImplicitStep:
    """A proximal step with its verdict.

    Attributes
    ----------
    weights : tuple of Tensor
        θ', whatever the verdict is.
    activity : tuple of Tensor
        ĥ: what was solved for, or the forward pass of θ'.
    residual : float
        The certificate ‖θ' − θ + α∇L(θ')‖/‖θ' − θ‖; with ε > 0 the like of the quadratic penalty.
    iterations : int
        Newton steps, over all rungs of a branch.
    ending : MinimumEnding
        Why the search stopped.
    """

    weights: Layers
    activity: Layers
    residual: float
    iterations: int
    ending: MinimumEnding

    @property
    def is_solved(self) -> bool:
        """Whether the search converged to a minimum and the certificate is below :data:`ACCEPTED`."""
        return self.ending is MinimumEnding.CONVERGED and self.residual <= ACCEPTED


def flatten(layers: Layers) -> Tensor:
    """Return all entries in one row."""
    return torch.cat([each.reshape(-1) for each in layers])


def unflatten(row: Tensor, like: Layers) -> Layers:
    """Return a row as layers again."""
    pieces = torch.split(row, [each.numel() for each in like])
    return tuple(piece.reshape(each.shape) for piece, each in zip(pieces, like, strict=True))


def _require_one_sample(given: Tensor) -> None:
    if given.ndim != 2 or given.shape[0] != 1:
        raise NlsimError(
            "The step through the activities is exact for one sample at a time.",
            where="given",
            given=tuple(given.shape),
            allowed="shape (1, input)",
            advice="Use nlsim.systems.inference.batch for several samples, and a loop for an ensemble.",
        )


def solve_in_activities(
    problem: ProximalProblem,
    weights: Layers,
    given: Tensor,
    target: Tensor,
    *,
    start: Layers | None = None,
    max_iterations: int = 200,
) -> ImplicitStep:
    """Return the implicit step of one sample: Newton on G over all ĥ_1 … ĥ_L, then the normalised step.

    Parameters
    ----------
    problem : ProximalProblem
        Network, loss, rates and ε; activations must be differentiable twice.
    weights : tuple of Tensor
        θ, without ensemble axes.
    given, target : Tensor
        Shapes ``(1, input)`` and ``(1, output)``.
    start : tuple of Tensor, optional
        ĥ to begin with; the feedforward activities else.
    max_iterations : int
        Newton steps at most.

    Returns
    -------
    ImplicitStep
        A local minimum of J, the one downhill of the start; failures are its verdict.

    Raises
    ------
    NlsimError
        For several samples.

    Notes
    -----
    Cost: cubic in the number of neurons, a few Newton steps; accuracy 1e-12 and better in float64.

    References
    ----------
    Alonso, Millidge, Krichmar and Neftci, *A Theoretical Framework for Inference Learning*, NeurIPS 2022; the exact
    form is derived in the statement of the theorem ``inference.implicit-sgd``.
    """
    _require_one_sample(given)
    begin = feedforward(problem.network, weights, given) if start is None else start
    scale = _scale(problem)

    def energy(row: Tensor) -> Tensor:
        return scale * problem.energy(weights, given, target, unflatten(row, begin)).sum()

    found = minimise(energy, flatten(begin), max_iterations=max_iterations)
    activity = unflatten(found.point, begin)
    new = problem.update(weights, given, activity)
    if problem.penalty > 0:
        residual = penalty_certificate(problem, weights, new, given, target, activity)
    else:
        residual = float(certificate(problem, weights, new, given, target))
    return ImplicitStep(new, activity, residual, found.iterations, found.ending)


def solve_in_weights(
    problem: ProximalProblem,
    weights: Layers,
    given: Tensor,
    target: Tensor,
    *,
    start: Layers | None = None,
    max_iterations: int = 200,
) -> ImplicitStep:
    """Return the implicit step by Newton on J itself, for any number of samples (the loss is their mean).

    Parameters
    ----------
    problem : ProximalProblem
        Network, loss and rates; ε = 0, as J has no normaliser.
    weights : tuple of Tensor
        θ, without ensemble axes.
    given, target : Tensor
        Shapes ``(sample, input)`` and ``(sample, output)``.
    start : tuple of Tensor, optional
        θ' to begin with; θ else.
    max_iterations : int
        Newton steps at most.

    Returns
    -------
    ImplicitStep
        A local minimum of J; not always the one that :func:`solve_in_activities` finds when α is large.

    Raises
    ------
    NlsimError
        When ε > 0.

    Notes
    -----
    Cost: cubic in the number of weights, which should not exceed some hundred.
    """
    if problem.penalty > 0:
        raise NlsimError(
            "The proximal objective of the weights has no normaliser.",
            where="penalty",
            given=problem.penalty,
            allowed="0",
            advice="Solve in the activities, or set the penalty to 0.",
        )
    begin, scale = weights if start is None else start, _scale(problem)

    def objective(row: Tensor) -> Tensor:
        return scale * problem.objective(weights, unflatten(row, begin), given, target)

    found = minimise(objective, flatten(begin), max_iterations=max_iterations)
    return _judged(problem, weights, unflatten(found.point, begin), given, target, found)


def follow_branch(
    problem: ProximalProblem, weights: Layers, given: Tensor, target: Tensor, fractions: Sequence[float]
) -> ImplicitStep:
    """Return the implicit step on the branch that begins at θ for α → 0, of one sample.

    Parameters
    ----------
    problem : ProximalProblem
        The step wanted.
    weights, given, target
        As for :func:`solve_in_activities`.
    fractions : sequence of float
        Shares of α to solve at, each from the activities of the one before; increasing, the last 1.

    Returns
    -------
    ImplicitStep
        That of the last rung, or of the first that failed.

    Raises
    ------
    NlsimError
        When the fractions are not as said.
    """
    ladder = tuple(fractions)
    if not ladder or ladder[-1] != 1 or not all(0 < a < b for a, b in pairwise(ladder)):
        raise NlsimError(
            "A branch is followed over increasing shares of the learning rate that end at 1.",
            where="fractions",
            given=ladder,
            allowed="0 < f_1 < … < f_n = 1",
            advice="Take a geometric ladder, such as 0.01, 0.03, 0.1, 0.3, 1.",
        )
    activity, spent = feedforward(problem.network, weights, given), 0
    for fraction in ladder:
        rung = replace(problem, rate=tuple(fraction * alpha for alpha in problem.rates))
        step = solve_in_activities(rung, weights, given, target, start=activity)
        spent += step.iterations
        if not step.is_solved:
            break
        activity = step.activity
    return replace(step, iterations=spent)


def penalty_certificate(
    problem: ProximalProblem, weights: Layers, new: Layers, given: Tensor, target: Tensor, activity: Layers
) -> float:
    """Return ‖α ε ∇Q‖/‖θ' − θ‖ for the quadratic penalty Q of ĥ and θ' together; α is the largest rate.

    Cost: one forward and one backward pass.
    """

    def penalised(hidden: Layers, trial: Layers) -> Tensor:
        return problem.penalised(weights, trial, given, target, hidden).sum()

    slopes = grad(penalised, argnums=(0, 1))(activity, new)
    size = flatten((*slopes[0], *slopes[1])).norm() * max(problem.rates) * problem.penalty
    moved = flatten(new) - flatten(weights)
    return float(size / moved.norm()) if float(size) > 0 else 0.0


def _judged(
    problem: ProximalProblem, weights: Layers, new: Layers, given: Tensor, target: Tensor, found: Minimum
) -> ImplicitStep:
    residual = float(certificate(problem, weights, new, given, target))
    activity = feedforward(problem.network, new, given)
    return ImplicitStep(new, activity, residual, found.iterations, found.ending)


def _scale(problem: ProximalProblem) -> float:
    """Return α/(1 + α): it keeps both terms of the objective of order one at every α."""
    alpha = min(problem.rates)
    return alpha / (1 + alpha)
