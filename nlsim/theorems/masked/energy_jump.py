"""masked.energy-jump: energy falls between two changes of the mask, and jumps by the mask's own force at them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import RK4
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.masked.energy import MaskedEnergy
from nlsim.systems.masked.signal import MaskedSignal
from nlsim.systems.signals import Constant
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron_symbols import identities
from nlsim.theorems.masked.runs import Draw, draws, run
from nlsim.theorems.masked.soft_mask_bounds import SMOOTH, waves
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Sigma, SigmaPrime

INPUTS, NEURONS = 2, 2
_W = sp.Matrix(NEURONS, INPUTS, lambda i, j: sp.Symbol(f"w{i}{j}", real=True))
_U = sp.Matrix(INPUTS, 1, lambda j, _: sp.Symbol(f"u{j}", real=True))
_M = sp.Matrix(INPUTS, 1, lambda j, _: sp.Symbol(f"m{j}", real=True))
_B = sp.Matrix(NEURONS, 1, lambda i, _: sp.Symbol(f"b{i}", real=True))
_V = sp.Matrix(NEURONS, NEURONS, lambda i, j: sp.Symbol(f"v{min(i, j)}{max(i, j)}", real=True))
_S = sp.Matrix(NEURONS, 1, lambda i, _: sp.Symbol(f"s{i}", real=True))
_PI = sp.Matrix(INPUTS, 1, lambda j, _: sp.Symbol(f"pi{j}", nonnegative=True))
_BETA, _Z = sp.symbols("beta z", real=True)


def symbolic_energy(rho: Any) -> Any:
    """Return ½‖s‖² − ½ ϱᵀVϱ − ϱᵀCm + β ½(s_o − z)² with C_ij = w_ij u_j + π_j b_i, o being the last neuron."""
    seen = _S.applyfunc(rho)
    c = sp.Matrix(NEURONS, INPUTS, lambda i, j: _W[i, j] * _U[j] + _B[i] * _PI[j])
    nudged = _BETA * (_S[NEURONS - 1] - _Z) ** 2 / 2
    return (_S.T * _S)[0] / 2 - (seen.T * _V * seen)[0] / 2 - (seen.T * c * _M)[0] + nudged


def prove_balance(effort: Effort) -> Evidence:
    """Differentiate E along its flow with a moving mask, and take the difference at a jump."""
    energy = symbolic_energy(Sigma)
    flow = [-sp.diff(energy, s) for s in _S]
    t = sp.Symbol("t", real=True)
    s_of, m_of = ([sp.Function(f"{name}{k}")(t) for k in range(2)] for name in ("S", "M"))
    moving = {**dict(zip(_S, s_of, strict=True)), **dict(zip(_M, m_of, strict=True))}
    along = sp.diff(energy.subs(moving), t)
    for s, f in zip(s_of, flow, strict=True):
        along = along.subs(sp.Derivative(s, t), f.subs(moving))
    power = -sum(f**2 for f in flow)
    expected = power.subs(moving) + sum(
        sp.Derivative(m, t) * sp.diff(energy, symbol).subs(moving) for m, symbol in zip(m_of, _M, strict=True)
    )
    differences = [along - expected]
    later = {m: sp.Symbol(f"n{j}", real=True) for j, m in enumerate(_M)}
    jump = sum((later[m] - m) * sp.diff(energy, m) for m in _M)
    differences.append(energy.subs(later) - energy - jump)
    for i, s in enumerate(_S):
        local = (_V[i, :] * _S.applyfunc(Sigma))[0] + sum(
            _M[j] * (_W[i, j] * _U[j] + _B[i] * _PI[j]) for j in range(INPUTS)
        )
        pull = _BETA * (s - _Z) if i == NEURONS - 1 else 0
        differences.append(flow[i] + s + pull - SigmaPrime(s) * local)
    for j, m in enumerate(_M):
        force = -sum(Sigma(_S[i]) * (_W[i, j] * _U[j] + _B[i] * _PI[j]) for i in range(NEURONS))
        differences.append(sp.diff(energy, m) - force)
    mu = (_PI.T * _M)[0]
    for i in range(NEURONS):
        differences.append(sp.diff(energy, _B[i]) + mu * Sigma(_S[i]))
        differences += [sp.diff(energy, _W[i, j]) + Sigma(_S[i]) * _M[j] * _U[j] for j in range(INPUTS)]
    return identities(
        "dE/dt = −‖ṡ‖² + Σ ṁ_j ∂E/∂m_j; ΔE = Σ Δm_j ∂E/∂m_j; flow, force of the mask, ∂E/∂W and ∂E/∂b",
        "two neurons, two inputs, abstract ϱ, V = Vᵀ; any shares π and nudge β",
        differences,
    )


def energy_net(draw: Draw, **changed: Any) -> MaskedEnergy:
    """Return neurons with a symmetric V."""
    drawn = replace(draw, norm=draw.norm or 0.8)
    return MaskedEnergy(
        drawn.tensor("weight", drawn.neurons, drawn.inputs),
        drawn.recurrent(is_symmetric=True),
        ACTIVATIONS[drawn.activation],
        drawn.tensor("bias", drawn.neurons),
        **{"speed": drawn.speed, **changed},
    )


def bridge_energy(effort: Effort) -> Evidence:
    """Compare symbolic E, flow, force of the mask and derivatives by the weights with the running ones."""
    gaps = []
    symbols = [*_W, *_U, *_M, *_B, _V[0, 0], _V[0, 1], _V[1, 1], *_S, *_PI, _BETA, _Z]
    for name in ("tanh", "logistic", "softplus"):
        energy = symbolic_energy(SYMBOLIC_ACTIVATIONS[name])
        parts = [energy, *(-sp.diff(energy, s) for s in _S)]
        parts += [sp.diff(energy, symbol) for family in (_M, _W, _B) for symbol in family]
        symbolic = sp.lambdify(symbols, parts, "numpy")
        for case in range(5):
            draw = generator(case, "energy bridge")
            w, u, b, s, diagonal = (draw.normal(size=shape) for shape in ((2, 2), 2, 2, 2, 3))
            m = draw.uniform(size=2)
            v = np.array([[diagonal[0], diagonal[1]], [diagonal[1], diagonal[2]]])
            share, z = draw.uniform(), draw.normal()
            pi, beta = ([0.5, 0.5], 0.0) if case == 0 else ([share, 1.0 - share], (0.7, -0.6)[case % 2])
            system = MaskedEnergy(
                torch.as_tensor(w),
                torch.as_tensor(v),
                ACTIVATIONS[name],
                torch.as_tensor(b),
                nudge=beta,
                shares=None if case == 0 else torch.tensor(pi, dtype=torch.float64),
            )
            inputs = Inputs(
                torch.as_tensor(u[None]), torch.tensor([[z]], dtype=torch.float64), torch.as_tensor(m[None])
            )
            state = torch.as_tensor(s[None])
            by_weight, by_bias = system.energy_gradient(state, inputs)
            found = torch.cat(
                [
                    system.energy(0.0, state, inputs),
                    system.vector_field(0.0, state, inputs)[0],
                    system.mask_gradient(state, inputs)[0],
                    by_weight.flatten(),
                    by_bias,
                ]
            )
            expected = np.array(symbolic(*w.flatten(), *u, *m, *b, *diagonal, *s, *pi, beta, z))
            gaps.append(float(np.abs(found.numpy() - expected).max()))
    worst, tolerance = float(np.max(gaps)), 1e-13  # some tens of roundings of numbers below 20
    return Evidence(
        Leg.BRIDGE,
        "symbolic E and its derivatives = running ones",
        judge(worst <= tolerance),
        f"difference ≤ {tolerance:g}; three activations, soft masks, with and without shares and nudge",
        f"{worst:.2g} over {len(gaps)} cases",
    )


def energies(draw: Draw, *, steps: int = 6) -> tuple[list[Tensor], list[Tensor], list[float]]:
    """Return the rises of E between edges, the jumps of E at them, and how far these are off the formula."""
    system, z = energy_net(draw), 0.05
    dt = z / draw.speed
    interval = steps * dt
    signal = MaskedSignal(Constant(draw.given()), (draw.random_mask(0.5, interval),))
    until = 8 * interval
    ticks = run(system, signal, 3 * draw.state(), RK4, dt, until, [dt * n for n in range(8 * steps)])
    rises, jumps, gaps = [], [], []
    for before, after in pairwise(ticks):
        # what drives the state after a tick is what the tick after it shows
        begin = system.energy(before.t, before.state, after.inputs)
        rises.append(system.energy(after.t, after.state, after.inputs) - begin)
        ended = system.energy(before.t, before.state, before.inputs)
        assert after.inputs.mask is not None
        jump = system.mask_jump(before.state, before.inputs, after.inputs.mask)
        size = max(1.0, float(ended.abs().max()), float(jump.abs().max()))
        jumps.append(jump)
        gaps.append(float((begin - ended - jump).abs().max()) / size)
    return rises, jumps, gaps


def jump_property(effort: Effort) -> Evidence:
    """Runs through random masks: jumps by the formula, descent in between."""

    def error_of(draw: Draw) -> float:
        rises, _, gaps = energies(draw)
        return float(np.max([*gaps, max(float(each.max()) for each in rises)]))

    return check_property(
        "jumps at the edges, descent in between",
        # a jump: two ways to sum some tens of products of size up to E; a rise near rest is rounding
        "E(t⁺) − E(t⁻) = Σ Δm_j ∂E/∂m_j and no rise between edges, to 1e-13 of E; smooth activations",
        Effort(max(1, effort.examples // 2), effort.is_random),
        draws(activations=SMOOTH),
        error_of,
        2e-13,
    )


def balance_order(effort: Effort) -> Evidence:
    """Central differences of E along a run with soft masks against the power: of order 2."""
    draw = Draw(seed=9, samples=3, speed=1.7)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    system, soft, t = energy_net(draw, nudge=0.7, shares=shares), waves(draw, 2.0), 0.7
    given = replace(draw.given(), target=draw.tensor("target", draw.samples, 2))
    signal = MaskedSignal(Constant(given), (soft,))
    spans = [0.08, 0.04, 0.02, 0.01]
    gaps, free = [], []
    for span in spans:
        ticks = run(system, signal, draw.state(), RK4, 0.001, t + span, (t - span, t))
        early, now, late = (tick for tick in ticks if tick.is_record)
        rate = (system.energy(late.t, late.state, late.inputs) - system.energy(early.t, early.state, early.inputs)) / (
            2 * span
        )
        gaps.append(float((rate - system.power(now.state, now.inputs, soft.slope(t))).abs().max()))
        free.append(float((rate - system.power(now.state, now.inputs, 0 * soft.slope(t))).abs().max()))
    order = observed_order(spans, gaps)
    return Evidence(
        Leg.ORDER,
        "power balance under soft masks, with shares and a nudge",
        judge(abs(order - 2) <= 0.05 and free[-1] >= 100 * gaps[-1]),
        "central difference − power of order 2 ± 0.05; without the mask's part it is 100 times off",
        f"order {order:.3f}, {gaps[-1]:.1e}; without {free[-1]:.2g}",
    )


def monotone_control(effort: Effort) -> Evidence:
    """Across edges the energy does rise; and a blackout leaves s = 0 a minimum only where V is weak."""
    rose = 0
    for seed in range(20):
        _, jumps, _ = energies(Draw(seed=seed))
        rose += any(float(each.max()) > 0.01 for each in jumps)
    lowest, ends = {}, {}
    for norm in (0.8, 1.5):
        draw = Draw(seed=8, neurons=5, norm=norm)
        system = energy_net(draw)
        levels = torch.linalg.eigvalsh(system.recurrent)
        if levels.max() < -levels.min():
            system = replace(system, recurrent=-system.recurrent)
        lowest[norm] = float(torch.linalg.eigvalsh(system.neutral_curvature()).min())
        last = run(system, draw.blackout(0.0, 1e9), 0.01 * draw.state(), RK4, 0.1, 150.0)[-1].state
        ends[norm] = float(last.norm())
    is_right = abs(lowest[0.8] - 0.2) <= 1e-12 and abs(lowest[1.5] + 0.5) <= 1e-12
    return Evidence(
        Leg.CONTROL,
        "monotone across edges; minimum at 0",
        judge(rose >= 15 and is_right and ends[0.8] <= 1e-10 and ends[1.5] >= 0.1),  # e^(−0.2 · 150) = 1e-13
        "E rises by > 0.01 at an edge in 15 of 20 runs; curvature 1 − ‖V‖ at s = 0: positive, and 0 attracts; "
        "negative, and it repels",
        f"{rose} of 20; lowest curvature {lowest[0.8]:.3f} → {ends[0.8]:.1e}, {lowest[1.5]:.3f} → {ends[1.5]:.2f}",
    )


ENERGY_JUMP = Theorem(
    key="masked.energy-jump",
    title="Energy falls between two changes of the mask, and jumps with it",
    statement=(
        "The mask enters E linearly, ∂E/∂m_j = −Σ_i ϱ(s_i)(W_ij u_j + π_j b_i), so along the flow dE/dt = −‖ṡ‖²/c + "
        "Σ_j ṁ_j ∂E/∂m_j, and ΔE = Σ_j Δm_j ∂E/∂m_j where the mask jumps. E is a Lyapunov function between two changes "
        "only. In a blackout with ϱ(0) = 0 and without a nudge, s = 0 is a non-degenerate minimum iff I − ϱ'(0)² V is "
        "positive definite."
    ),
    hypotheses=("V = Vᵀ", "u held, and z where there is a nudge β", "any shares π_j of the bias, 1/p among them"),
    source="energy: Scellier and Bengio, 2017; what masks do to it is derived here",
    about=(MaskedEnergy,),
    checks=(prove_balance, bridge_energy, jump_property, balance_order, monotone_control),
)
