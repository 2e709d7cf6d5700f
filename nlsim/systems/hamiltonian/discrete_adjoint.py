"""The exact gradient of the discretised functional: explicit Euler forward, its paired costates backward.

On a grid t_n = t_0 + nτ, n = 0 … N, with the weight velocities v_n as controls,

* x^{n+1} = x^n + τ f(x^n, w^n, t_n),  w^{n+1} = w^n + τ v_n;
* G_τ = τ Σ_{n<N} φ_n [ m c |v_n|²/2 + c ℓ(w^n, x^n, t_n) ],  φ_n = e^{θ t_n};
* p^N = 0,  p^n = p^{n+1} + τ H_y(y^n, p^{n+1}, t_n),  y = (x, w).

States of n go with costates of n + 1: together the two are a step of symplectic Euler. Then

    ∂G_τ/∂v_n = τ (m c φ_n v_n + p_w^{n+1})

is the derivative of G_τ itself and not an approximation of order τ, as it would be with y^{n+1} in H_y.
Costates are kept normalised. With q^n = p^{n+1}/φ_n = e^{θτ} π^{n+1}, a step back is π^n = q^n + τ h_y(y^n, q^n), and
the derivative is τ φ_n (m c v_n + q_w^n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Inputs, Signal
from nlsim.errors import NlsimError
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, align, largest, partials
from nlsim.systems.network import Constant

Layers = tuple[Tensor, ...]


@dataclass(frozen=True)
class EulerPath:
    """A controlled path on the grid.

    Attributes
    ----------
    activity : tuple of Tensor
        x_l at all grid points, shape ``(N + 1, ..., sample, layer)``.
    weight : tuple of Tensor
        W_l at all grid points, shape ``(N + 1, ..., layer, source[+1])``.
    inputs : tuple of Inputs
        What drove each step.
    functional : Tensor
        G_τ; shape: the ensemble axes.
    """

    activity: Layers
    weight: Layers
    inputs: tuple[Inputs, ...]
    functional: Tensor


@dataclass(frozen=True)
class DiscreteAdjoint:
    """A path, its costates and the gradient of its cost.

    Attributes
    ----------
    functional : Tensor
        G_τ; shape: the ensemble axes.
    trajectory : LearningState
        States and normalised costates π^n at all grid points; the grid is the first axis.
    gradient : tuple of Tensor
        ∂G_τ/∂v_n, shapes of the control.
    """

    functional: Tensor
    trajectory: LearningState
    gradient: Layers


def euler_path(
    problem: LearningProblem[Any],
    activity: Layers,
    weight: Layers,
    control: Layers,
    signal: Signal,
    dt: float,
    start: float = 0.0,
) -> EulerPath:
    """Return the path of explicit Euler under given weight velocities, and its cost G_τ.

    Parameters
    ----------
    problem : LearningProblem
        Network, loss and constants; the mass must be finite.
    activity, weight : tuple of Tensor
        x_l and W_l at ``start``, shapes ``(..., sample, layer)`` and ``(..., layer, source[+1])``.
    control : tuple of Tensor
        v_l, the velocity of W_l in each of the N ≥ 1 steps, shape ``(N, ..., layer, source[+1])``.
    signal : Signal
        Inputs and targets. Held ones change with the step that begins on their edge.
    dt : float
        τ > 0.
    start : float
        t_0.

    Raises
    ------
    NlsimError
        When the control does not fit the network, or the mass is infinite.
    """
    steps = _check(problem, weight, control)
    inputs = tuple(_inputs(signal, [start + n * dt for n in range(steps)]))
    x, w = activity, weight
    activities, weights, functional = [x], [w], torch.zeros((), dtype=w[0].dtype, device=w[0].device)
    for n in range(steps):
        v = tuple(layer[n] for layer in control)
        discount = _exponential(problem.dissipation, start + n * dt)
        functional = functional + dt * discount * _running_cost(problem, x, w, v, inputs[n])
        f = _velocity(problem, x, w, inputs[n])
        x = tuple(each + dt * rate for each, rate in zip(x, f, strict=True))
        w = tuple(each + dt * rate for each, rate in zip(w, v, strict=True))
        activities.append(x)
        weights.append(w)
    return EulerPath(_stack(activities), _stack(weights), inputs, functional)


def discrete_adjoint(
    problem: LearningProblem[Any],
    activity: Layers,
    weight: Layers,
    control: Layers,
    signal: Signal,
    dt: float,
    start: float = 0.0,
) -> DiscreteAdjoint:
    """Return G_τ, the path with its costates, and ∂G_τ/∂v_n, exact to rounding.

    Parameters and errors are those of :func:`euler_path`. Cost: four matrix products a layer and step; all
    N + 1 states are kept. The source is Betti & Gori, eq. 8–13, discretised; any symplectic partitioned
    Runge–Kutta pair has this property (Sanz-Serna, SIAM Review 58, 2016).
    """
    path = euler_path(problem, activity, weight, control, signal, dt, start)
    growth = _aligned_exponential(problem.dissipation, dt)
    inertia = align(problem.mass * problem.mean_speed)
    costate = tuple(torch.zeros_like(each[0]) for each in path.activity)
    weight_costate = tuple(torch.zeros_like(each[0]) for each in path.weight)
    costates, weight_costates = [costate], [weight_costate]
    gradients: list[Layers] = []
    for n in reversed(range(len(path.inputs))):
        later = LearningState(
            tuple(each[n] for each in path.activity),
            tuple(each[n] for each in path.weight),
            tuple(growth * each for each in costate),
            tuple(growth * each for each in weight_costate),
        )
        scale = dt * _aligned_exponential(problem.dissipation, start + n * dt)
        pairs = zip(control, later.weight_costate, strict=True)
        gradients.append(tuple(scale * (inertia * v[n] + q) for v, q in pairs))
        slope = partials(problem, later, path.inputs[n])
        costate = tuple(q + dt * h for q, h in zip(later.costate, slope.h_activity, strict=True))
        weight_costate = tuple(q + dt * h for q, h in zip(later.weight_costate, slope.h_weight, strict=True))
        costates.append(costate)
        weight_costates.append(weight_costate)
    trajectory = LearningState(path.activity, path.weight, _stack(costates[::-1]), _stack(weight_costates[::-1]))
    return DiscreteAdjoint(path.functional, trajectory, _stack(gradients[::-1]))


def _velocity(problem: LearningProblem[Any], activity: Layers, weight: Layers, inputs: Inputs) -> Layers:
    """Return f = c_l (σ(a_l) − x_l)."""
    network, given, rates = problem.network, required_input(inputs), []
    for group, (x, w) in enumerate(zip(activity, weight, strict=True)):
        a = network.pre_activation(w, network.source(group, given, activity))
        rates.append(problem.speed_of(group) * (network.activations[group].value(a) - x))
    return tuple(rates)


def _running_cost(
    problem: LearningProblem[Any], activity: Layers, weight: Layers, velocity: Layers, inputs: Inputs
) -> Tensor:
    """Return m c |v|²/2 + c (L + k|w|²/2), L summed over samples."""
    cost = problem.loss.value(problem.network.output(activity), required_target(inputs)).sum(-1)
    for w, v in zip(weight, velocity, strict=True):
        cost = cost + 0.5 * problem.regularisation * w.square().sum((-2, -1))
        cost = cost + 0.5 * problem.mass * v.square().sum((-2, -1))
    return problem.mean_speed * cost


def _inputs(signal: Signal, times: list[float]) -> list[Inputs]:
    """Return the inputs at each time, on the smooth stretch that begins at or contains it."""
    piece, edge, found = signal.piece(times[0]), signal.edge_after(times[0]), []
    for t in times:
        later = signal.edge_after(t)
        if later != edge:
            piece, edge = signal.piece(t), later
        found.append(piece(t))
    return found


def _exponential(rate: Constant, t: float) -> Constant:
    return torch.exp(rate * t) if isinstance(rate, Tensor) else math.exp(rate * t)


def _aligned_exponential(rate: Constant, t: float) -> Constant:
    return align(_exponential(rate, t))


def _stack(points: Sequence[Layers]) -> Layers:
    return tuple(torch.stack(layer) for layer in zip(*points, strict=True))


def _check(problem: LearningProblem[Any], weight: Layers, control: Layers) -> int:
    """Return the number of steps, or say what does not fit."""
    if math.isinf(largest(problem.mass)):
        raise NlsimError(
            "Weights of infinite mass have no control.",
            where="problem.mass",
            given=problem.mass,
            allowed="a finite mass",
            advice="Give the problem a mass, or differentiate with frozen weights by backpropagation.",
        )
    shapes = [tuple(v.shape) for v in control]
    expected = [("N", *w.shape) for w in weight]
    fits = [shape[1:] for shape in shapes] == [shape[1:] for shape in expected]
    if not fits or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] < 1:
        raise NlsimError(
            "The control does not fit the weights.",
            where="control",
            given=shapes,
            allowed=f"{expected}, the same N ≥ 1 in every layer",
            advice="Give one velocity of each weight for each step, steps first.",
        )
    return shapes[0][0]
