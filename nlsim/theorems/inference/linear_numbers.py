"""Shared by the theorems on deep linear networks: the closed forms in symbols, and random linear networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.inference.energy import Layers, feedforward, free_energy, predict
from nlsim.systems.inference.linear import LinearEquilibrium, hard_clamp, soft_clamp
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.proximal_cases import Draw, SymbolicNet, number, symbolic_net, symbolic_twin
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import every, is_zero

SHAPES = (((1, 1, 1), False), ((1, 1, 1, 1), False), ((2, 2, 2), True), ((1, 2, 2, 2), False))


def identity(value: Any) -> Any:
    """Return the value: the activation of a linear network."""
    return value


def symbolic_tails(net: SymbolicNet) -> list[Any]:
    """Return T_l = W_L ⋯ W_{l+1}, T_L = I."""
    plain = [w[:, :-1] if net.has_bias else w for w in net.weight]
    found = [sp.eye(plain[-1].rows)]
    for w in reversed(plain[1:]):
        found.append(found[-1] * w)
    return found[::-1]


def precisions_of(net: SymbolicNet) -> list[Any]:
    """Return the symbols γ_1 … γ_L."""
    return [sp.Symbol(f"gamma{layer}", positive=True) for layer in range(len(net.weight))]


def prove_rest_state(*, is_hard: bool) -> Evidence:
    """Stationarity and F* for any v = (I + K)⁻¹ r: with y = h_L + (I + K) v everything is a polynomial."""
    answers: list[bool | None] = []
    for widths, has_bias in SHAPES:
        net = symbolic_net(widths, has_bias=has_bias, activation=identity)
        gamma, T = precisions_of(net), symbolic_tails(net)
        v = sp.Matrix([sp.Symbol(f"v{k}", real=True) for k in range(widths[-1])])
        spread = sum((t * t.T / g for t, g in zip(T, gamma, strict=True)), sp.zeros(widths[-1]))
        system = spread if is_hard else sp.eye(widths[-1]) + spread
        errors = [t.T * v / g for t, g in zip(T, gamma, strict=True)]
        plain, settled = net.x, net.x
        at: dict[Any, Any] = {}
        for w, e, h in zip(net.weight, errors, net.h, strict=True):
            one = sp.ones(1, 1)
            plain = w * (plain.col_join(one) if has_bias else plain)
            settled = w * (settled.col_join(one) if has_bias else settled) + e
            at |= dict(zip(h, settled, strict=True))
        residual = system * v
        target = plain + residual
        at |= dict(zip(net.y, target, strict=True))
        energy = sum(g * sum(e**2 for e in net.error(layer)) / 2 for layer, g in enumerate(gamma))
        free = [h for layer in net.h[:-1] for h in layer]
        if is_hard:
            answers += [is_zero(each) for each in settled - target]
        else:
            energy += sum((a - b) ** 2 for a, b in zip(net.y, net.h[-1], strict=True)) / 2
            free += list(net.h[-1])
            answers += [is_zero(each) for each in target - settled - v]
        answers += [is_zero(sp.diff(energy, h).subs(at)) for h in free]
        answers.append(is_zero(energy.subs(at) - (residual.T * v)[0] / 2))
    return Evidence(
        Leg.PROOF,
        f"rest state and F* under a {'hard' if is_hard else 'soft'} clamp",
        judge(every(answers)),
        "∂F/∂ĥ = 0 at γ_l e_l = T_lᵀ v and F* = ½ rᵀ v, r = (I + K) v or S v; nets of up to 3 layers of 2",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_rest_state(*, is_hard: bool) -> Evidence:
    """The symbolic energy at the running closed form: its value there, and its gradient, which must vanish."""
    worst, count = 0.0, 0
    for widths, has_bias in (((2, 3, 2), True), ((2, 2, 3, 2), False)):
        draw = Draw(widths, "identity", has_bias=has_bias, seed=6)
        net, values, _ = symbolic_twin(draw)
        gamma = (1.3, 0.4, 2.0)[: len(widths) - 1]
        values |= dict(zip(precisions_of(net), gamma, strict=True))
        clamp = hard_clamp if is_hard else soft_clamp
        rest = clamp(draw.network, draw.weights(), *draw.sample(), gamma)
        for symbols, row in zip(net.h, rest.activity, strict=True):
            values |= dict(zip(symbols, row.flatten().tolist(), strict=True))
        errors = [net.error(layer) for layer in range(len(gamma))]
        energy = sum(g * sum(e**2 for e in each) / 2 for g, each in zip(precisions_of(net), errors, strict=True))
        free = [h for layer in net.h[: -1 if is_hard else None] for h in layer]
        if not is_hard:
            energy += sum((a - b) ** 2 for a, b in zip(net.y, net.h[-1], strict=True)) / 2
        gaps = [abs(number(sp.diff(energy, h), values)) for h in free]
        gaps.append(abs(number(energy, values) - float(rest.energy)))
        for each, e in zip(errors, rest.errors, strict=True):
            gaps += [abs(number(a, values) - float(b)) for a, b in zip(each, e.flatten(), strict=True)]
        worst, count = float(np.max([worst, *gaps])), count + len(gaps)
    return Evidence(
        Leg.BRIDGE,
        "symbolic energy at the running rest state",
        judge(worst <= 1e-12),  # a 2 × 2 system of condition below 100
        "gradient 0, value and errors equal, to 1e-12",
        f"{worst:.2g} over {count} numbers",
    )


def draws(*, depth: int = 5) -> st.SearchStrategy[tuple[Draw, tuple[float, ...]]]:
    """Return random linear networks of three samples with their precisions."""

    def build(case: tuple[tuple[int, ...], bool, int]) -> tuple[Draw, tuple[float, ...]]:
        widths, has_bias, seed = case
        draw = generator(seed, "precisions")
        gamma = tuple(float(each) for each in 10 ** draw.uniform(-1, 1, len(widths) - 1))
        return Draw(widths, "identity", has_bias=has_bias, seed=seed, samples=3), gamma

    shapes = st.lists(st.integers(1, 6), min_size=3, max_size=depth + 1).map(tuple)
    return st.tuples(shapes, st.booleans(), st.integers(0, 10**6)).map(build)


def least_squares(draw: Draw, precisions: tuple[float, ...], *, is_hard: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return all settled activities side by side, and F*, by NumPy's least squares on the stacked √γ e."""
    network, weights, (given, target) = draw.network, draw.weights(), draw.sample()
    sizes = network.sizes[:-1] if is_hard else network.sizes
    found, energies = [], []
    for x, y in zip(given, target, strict=True):

        def stacked(row: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            """Return the √γ e, and √1 (ĥ_L − y): affine in the activities."""
            hidden = tuple(part[None] for part in torch.split(row, list(sizes)))
            every_layer = (*hidden, y[None]) if is_hard else hidden
            errors = predict(network, weights, x[None], every_layer[:-1]).errors(every_layer)
            parts = [g**0.5 * e for g, e in zip(precisions, errors, strict=True)]
            return torch.cat([each.flatten() for each in (*parts, *(() if is_hard else (hidden[-1] - y,)))])

        zero = torch.zeros(sum(sizes), dtype=torch.float64)
        start = stacked(zero)
        columns = [stacked(unit) - start for unit in torch.eye(len(zero), dtype=torch.float64)]
        A, b = torch.stack(columns, 1).numpy(), -start.numpy()
        h = np.linalg.lstsq(A, b, rcond=None)[0]
        found.append(h)
        energies.append(0.5 * float(np.sum((A @ h - b) ** 2)))
    return np.array(found), np.array(energies)


def error_of_rest(case: tuple[Draw, tuple[float, ...]], *, is_hard: bool) -> float:
    """Return how far the closed form is from least squares, activities and energies, relative to 1 + their size."""
    draw, gamma = case
    rest: LinearEquilibrium = (hard_clamp if is_hard else soft_clamp)(
        draw.network, draw.weights(), *draw.sample(), gamma
    )
    activity, energy = least_squares(draw, gamma, is_hard=is_hard)
    ours = torch.cat(rest.activity[: -1 if is_hard else None], -1).numpy()
    own = _running_energy(draw, gamma, rest.activity, is_hard=is_hard).numpy()
    pairs = ((ours, activity), (rest.energy.numpy(), energy), (own, energy))
    return float(np.max([np.abs(a - b).max() / (1 + np.abs(b).max()) for a, b in pairs]))


def _running_energy(draw: Draw, gamma: tuple[float, ...], activity: Layers, *, is_hard: bool) -> Tensor:
    given, target = draw.sample()
    errors = predict(draw.network, draw.weights(), given, activity[:-1]).errors(activity)
    if is_hard:
        return free_energy(errors, gamma)
    return free_energy(errors, gamma, loss=SQUARED_ERROR, output=activity[-1], target=target)


def nonlinear_control(*, is_hard: bool) -> Evidence:
    """With a tanh between the layers the closed form of the linear network must be no rest state."""
    draw = Draw((4, 5, 5, 3), "identity", seed=4)
    bent = Draw((4, 5, 5, 3), "tanh", seed=4)
    gamma = (1.0, 1.0, 1.0)
    rest = (hard_clamp if is_hard else soft_clamp)(draw.network, draw.weights(), *draw.sample(), gamma)
    value = float(_running_energy(bent, gamma, rest.activity, is_hard=is_hard))
    output = feedforward(bent.network, bent.weights(), bent.sample()[0])[-1]
    gap = abs(value - float(rest.energy)) / float((output - bent.sample()[1]).square().sum())
    return Evidence(
        Leg.CONTROL,
        "tanh between the layers",
        judge(gap > 1e-2),
        "the energy of the running network differs from F* of the linear one by more than 1e-2 of the residual",
        f"{gap:.2g}",
    )


def soft_proof(effort: Effort) -> Evidence:
    """Rest state and energy under a soft clamp, by polynomial identities."""
    return prove_rest_state(is_hard=False)


def hard_proof(effort: Effort) -> Evidence:
    """Rest state and energy under a hard clamp, by polynomial identities."""
    return prove_rest_state(is_hard=True)


def bridge_soft(effort: Effort) -> Evidence:
    """The symbolic energy at the rest state of the running soft clamp."""
    return bridge_rest_state(is_hard=False)


def bridge_hard(effort: Effort) -> Evidence:
    """The symbolic energy at the rest state of the running hard clamp."""
    return bridge_rest_state(is_hard=True)
