"""The implicit step of a mini-batch, L = (1/B) Σ_b ℓ_b: by Gram matrices, or by dual variables for any B.

With A_l the stacked sources ã of B samples (rows) and E_l their errors, the closest weights that give all activities
are W_l + E_lᵀ (A_{l−1}⁺)ᵀ, at the cost

    G(ĥ) = (1/B) Σ_b ℓ_b + Σ_l tr(E_lᵀ (A_{l−1} A_{l−1}ᵀ)⁻¹ E_l)/(2α_l).

This needs every A_l to have independent rows, so B ≤ the smallest number of sources. With dual variables D_l (one
number a neuron and sample) W'_l = W_l + α_l D_lᵀ A'_{l−1}, A' from the forward pass of W' itself, and J is minimised
over D: every stationary point of J is of this form, for any B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import grad

from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers, feedforward, predict
from nlsim.systems.inference.implicit_step import ImplicitStep, flatten, unflatten
from nlsim.systems.inference.minimum import Minimum, MinimumEnding, minimise
from nlsim.systems.inference.proximal import ProximalProblem, certificate
from nlsim.systems.network import LayeredNetwork

NEWTON_UNKNOWNS = 400
"""Up to so many dual variables the search is finished by Newton's method."""


def _factor(network: LayeredNetwork, source: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q and R with Aᵀ = Q R, so that A Aᵀ = RᵀR: its Cholesky factor without squaring the condition of A."""
    sources = torch.cat((source, torch.ones_like(source[..., :1])), -1) if network.has_bias else source
    if sources.shape[-2] > sources.shape[-1]:
        raise _too_many(sources.shape[-2], sources.shape[-1])
    orthogonal, triangle = torch.linalg.qr(sources.mT)
    return orthogonal, triangle


def _too_many(samples: int, most: int) -> NlsimError:
    return NlsimError(
        "The Gram matrix of a layer's inputs is singular: the samples outnumber its independent inputs.",
        where="given",
        given=f"{samples} samples",
        allowed=f"at most {most} samples",
        advice=f"Use the dual variables (solve_by_duals), which take any batch, or batches of at most {most}.",
    )


def largest_batch(network: LayeredNetwork, given: Tensor) -> int:
    """Return the largest B for which Gram matrices of these inputs can be inverted.

    The smaller of the rank of the inputs (with the constant 1 of a bias) and of every hidden width (plus 1).
    """
    sources = torch.cat((given, torch.ones_like(given[..., :1])), -1) if network.has_bias else given
    rank = int(torch.linalg.matrix_rank(sources))
    return min(rank, *(width + int(network.has_bias) for width in network.widths[:-1]))


def gram_energy(problem: ProximalProblem, weights: Layers, given: Tensor, target: Tensor, activity: Layers) -> Tensor:
    """Return G(ĥ) of a batch, one number for all samples; shape: the ensemble axes. Cost: cubic in B, a layer."""
    made = predict(problem.network, weights, given, activity[:-1])
    total = problem.loss.value(activity[-1], target).mean(-1)
    for alpha, source, e in zip(problem.rates, made.source, made.errors(activity), strict=True):
        _, triangle = _factor(problem.network, source)
        inner = torch.linalg.solve_triangular(triangle.mT, e, upper=False)
        total = total + inner.square().sum((-2, -1)) / (2 * alpha)
    return total


def gram_update(network: LayeredNetwork, weights: Layers, given: Tensor, activity: Layers) -> Layers:
    """Return W_l + E_lᵀ (A_{l−1}⁺)ᵀ: the closest weights whose forward pass gives ĥ for all samples."""
    made = predict(network, weights, given, activity[:-1])
    new = []
    for w, source, e in zip(weights, made.source, made.errors(activity), strict=True):
        orthogonal, triangle = _factor(network, source)
        inner = torch.linalg.solve_triangular(triangle.mT, e, upper=False)
        new.append(w + (orthogonal @ inner).mT)
    return tuple(new)


def solve_by_gram(
    problem: ProximalProblem, weights: Layers, given: Tensor, target: Tensor, *, max_iterations: int = 200
) -> ImplicitStep:
    """Return the implicit step of a batch through its activities, B Σ d_l unknowns.

    Parameters
    ----------
    problem : ProximalProblem
        Network, loss and rates; ε = 0.
    weights : tuple of Tensor
        θ, without ensemble axes.
    given, target : Tensor
        Shapes ``(sample, input)`` and ``(sample, output)``.
    max_iterations : int
        Newton steps at most.

    Returns
    -------
    ImplicitStep
        With the certificate of the mean loss.

    Raises
    ------
    NlsimError
        When samples outnumber the independent sources of some layer, or ε > 0.

    Notes
    -----
    Cost: cubic in B Σ d_l a Newton step. With B close to a hidden width, or hidden activities that are nearly
    collinear, the search can run towards dependent rows of A_l and end as ``budget_spent`` or ``stalled``; the dual
    variables have no such edge.
    """
    _require_no_penalty(problem)
    most = largest_batch(problem.network, given)
    if given.shape[-2] > most:
        raise _too_many(given.shape[-2], most)
    begin, scale = feedforward(problem.network, weights, given), min(problem.rates) / (1 + min(problem.rates))

    def energy(row: Tensor) -> Tensor:
        return scale * gram_energy(problem, weights, given, target, unflatten(row, begin))

    found = minimise(energy, flatten(begin), max_iterations=max_iterations)
    activity = unflatten(found.point, begin)
    new = gram_update(problem.network, weights, given, activity)
    residual = float(certificate(problem, weights, new, given, target))
    return ImplicitStep(new, activity, residual, found.iterations, found.ending)


def dual_weights(problem: ProximalProblem, weights: Layers, given: Tensor, duals: Layers) -> Layers:
    """Return W'_l = W_l + α_l D_lᵀ A'_{l−1}, layer by layer with the forward pass of the new weights.

    At a stationary point of J, D_l is minus the gradient of the mean loss at the pre-activations of layer l.
    """
    network, source, new = problem.network, given, list[Tensor]()
    for w, d, alpha, activation in zip(weights, duals, problem.rates, network.activations, strict=True):
        new.append(w + alpha * network.weight_gradient(d, source, w))
        source = activation.value(network.pre_activation(new[-1], source))
    return tuple(new)


def solve_by_duals(
    problem: ProximalProblem,
    weights: Layers,
    given: Tensor,
    target: Tensor,
    *,
    max_iterations: int = 500,
) -> ImplicitStep:
    """Return the implicit step of a batch of any size through its dual variables.

    Parameters
    ----------
    problem, weights, given, target
        As for :func:`solve_by_gram`.
    max_iterations : int
        Iterations of L-BFGS, and of Newton's method after it, at most.

    Returns
    -------
    ImplicitStep
        ``residual`` is the accuracy reached: L-BFGS alone gives about 1e-7, Newton's method, used for up to
        :data:`NEWTON_UNKNOWNS` dual variables, round-off. Never refuses a batch.

    Notes
    -----
    Cost: one forward and backward pass an iteration of L-BFGS; memory linear in B Σ d_l.
    """
    _require_no_penalty(problem)
    activity = feedforward(problem.network, weights, given)
    scale = min(problem.rates) / (1 + min(problem.rates))

    def objective(row: Tensor) -> Tensor:
        new = dual_weights(problem, weights, given, unflatten(row, activity))
        return scale * problem.objective(weights, new, given, target)

    start = torch.zeros_like(flatten(activity))
    is_small = start.numel() <= NEWTON_UNKNOWNS
    found = _quasi_newton(objective, start, max_iterations, 1e-9 if is_small else 1e-18)
    if is_small:
        polished = minimise(objective, found.point, max_iterations=max_iterations)
        found = replace(polished, iterations=found.iterations + polished.iterations)
    new = dual_weights(problem, weights, given, unflatten(found.point, activity))
    residual = float(certificate(problem, weights, new, given, target))
    return ImplicitStep(new, feedforward(problem.network, new, given), residual, found.iterations, found.ending)


def _quasi_newton(objective: Callable[[Tensor], Tensor], start: Tensor, max_iterations: int, gain: float) -> Minimum:
    """Run L-BFGS until an iteration lowers the function by less than the gain."""
    point, slope_of = start.clone().requires_grad_(), grad(objective)
    search = torch.optim.LBFGS(
        [point],
        max_iter=max_iterations,
        tolerance_grad=0.0,
        tolerance_change=gain,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        with torch.no_grad():
            point.grad = slope_of(point.detach())
            return float(objective(point.detach()))

    search.step(closure)  # type: ignore[no-untyped-call]
    end = point.detach()
    slope = slope_of(end)
    spent = int(search.state[point]["n_iter"])
    is_finite = bool(slope.isfinite().all())
    ending = MinimumEnding.STALLED if is_finite else MinimumEnding.NOT_FINITE
    if is_finite and spent >= max_iterations:
        ending = MinimumEnding.BUDGET_SPENT
    return Minimum(end, float(slope.norm()), float("nan"), spent, ending)


def _require_no_penalty(problem: ProximalProblem) -> None:
    if problem.penalty > 0:
        raise NlsimError(
            "The step of a batch has no normaliser to add a constant to.",
            where="penalty",
            given=problem.penalty,
            allowed="0",
            advice="Set the penalty to 0.",
        )
