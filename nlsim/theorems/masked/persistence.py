"""masked.persistence: a neutral drive does not make a neutral state; strongly coupled neurons remember."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from scipy.optimize import brentq, root  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from nlsim.core.ending import Ending
from nlsim.core.system import Signal
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import RK4
from nlsim.integrate.loop import Loop
from nlsim.systems.activation import LOGISTIC, Activation
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.masked.neuron_symbols import bridge_field
from nlsim.theorems.masked.runs import Draw, draws
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def rest(system: MaskedNeuron, signal: Signal, state: Tensor) -> Tensor:
    """Run until nothing moves any more.

    Raises
    ------
    ArithmeticError
        When that does not happen.
    """
    loop = Loop(system, FixedStep(RK4, 0.5), signal, state, until=4000.0, steady_tolerance=1e-14)
    for _ in loop:
        pass
    if loop.ending is not Ending.STEADY:
        raise ArithmeticError(f"no rest state: {loop.ending}")
    return loop.state


def symmetric(norm: float, **changed: Any) -> tuple[Draw, MaskedNeuron]:
    """Return five tanh neurons with a symmetric V of a given norm, which is its largest eigenvalue."""
    draw = Draw(seed=8, neurons=5, samples=1, norm=1.0)
    matrix = draw.recurrent(is_symmetric=True)
    levels = torch.linalg.eigvalsh(matrix)
    if levels.max() < -levels.min():
        matrix = -matrix
    return draw, draw.neuron(recurrent=norm * matrix, **changed)


def single(effort: Effort) -> Evidence:
    """One tanh neuron that excites itself by 1.5, in a blackout."""
    expected = float(brentq(lambda x: np.tanh(1.5 * x) - x, 0.5, 1.0, xtol=1e-15, rtol=1e-14))
    draw = Draw(neurons=1, samples=1)
    blackout = draw.blackout(0.0, 1e9)
    loud = torch.full((1, 1), 1.5, dtype=torch.float64)
    gaps = []
    for form, level in (("state", expected), ("potential", 1.5 * expected)):
        system = draw.neuron(recurrent=loud, form=form)
        found = rest(system, blackout, torch.full((1, 1), 0.1, dtype=torch.float64))
        gaps.append(abs(float(found) - level))
        drive = system.drive(blackout.piece(1.0)(1.0))
        gaps.append(float(drive.abs().max()))
    return Evidence(
        Leg.COUNTEREXAMPLE,
        "one neuron, V = 1.5, tanh",
        judge(max(gaps) <= 1e-13),  # at rest |f| ≤ 1e-14 and |f'| = 1 − 1.5(1 − x²) = 0.61
        f"drive exactly 0, state at the root of x = tanh(1.5 x), {expected:.12f}; potential 1.5 times that; to 1e-13",
        f"largest gap {max(gaps):.1e}",
    )


def symmetric_net(effort: Effort) -> Evidence:
    """Five neurons, symmetric V of norm 1.5: the rest state is a root that SciPy confirms, and it attracts."""
    draw, system = symmetric(1.5)
    blackout = draw.blackout(0.0, 1e9)
    found = rest(system, blackout, draw.state())
    matrix = system.recurrent
    assert matrix is not None
    v = matrix.numpy()
    solved = root(lambda x: np.tanh(v @ x) - x, found[0].numpy(), tol=1e-14)
    gap = float(np.abs(solved.x - found[0].numpy()).max())
    slopes = 1 - solved.x**2
    growth = float(np.linalg.eigvals(slopes[:, None] * v - np.eye(5)).real.max())
    drive = float(system.drive(blackout.piece(1.0)(1.0)).abs().max())
    size = float(np.linalg.norm(solved.x))
    return Evidence(
        Leg.COUNTEREXAMPLE,
        "five neurons, V symmetric with largest eigenvalue 1.5, tanh",
        judge(gap <= 1e-12 and drive == 0.0 and size >= 0.5 and growth < 0),
        "drive exactly 0; rest at a root of x = tanh(V x) with norm ≥ 0.5, to 1e-12; all eigenvalues of its Jacobian "
        "have negative real parts",
        f"norm {size:.4f}, gap {gap:.1e}, largest real part {growth:.3f}, drive {drive:g}",
    )


def drive_is_neutral(effort: Effort) -> Evidence:
    """What the blackout does make neutral, always, is the drive."""

    def error_of(draw: Draw) -> float:
        signal = draw.blackout(0.0, 1.0)
        system = replace(draw.neuron(), bias=1e6 * draw.tensor("bias", draw.neurons))
        return float(system.drive(signal.piece(0.5)(0.5)).abs().max())

    return check_property(
        "the drive is exactly 0",
        "exactly 0.0 for every W, u and bias up to 1e6, however strong V is",
        effort,
        draws(norms=st.floats(0.1, 5.0)),
        error_of,
        0.0,
    )


def norm_control(effort: Effort) -> Evidence:
    """Below norm 1 the same neurons fall silent; with φ(0) ≠ 0 even they rest off φ(0)."""
    rows, sizes = [], {}
    for norm in (0.5, 0.9, 1.1, 1.5, 2.0):
        draw, system = symmetric(norm)
        sizes[norm] = float(rest(system, draw.blackout(0.0, 1e9), draw.state()).norm())
        rows.append((f"{norm:g}", f"{sizes[norm]:.6f}"))
    draw, system = symmetric(0.9, activation=LOGISTIC)
    settled = rest(system, draw.blackout(0.0, 1e9), draw.state())
    off = float((settled - 0.5).abs().max())
    uncoupled = rest(replace(system, recurrent=None), draw.blackout(0.0, 1e9), draw.state())
    neutral = float((uncoupled - 0.5).abs().max())
    is_right = max(sizes[0.5], sizes[0.9]) <= 1e-12 and min(sizes[1.1], sizes[1.5], sizes[2.0]) >= 0.1
    return Evidence(
        Leg.CONTROL,
        "norms below and above 1; a logistic net",
        judge(is_right and off >= 0.01 and neutral <= 1e-13),  # at norm 0.9, |x| ≤ |f|/0.1 = 1e-13
        "‖V‖ < 1: norm ≤ 1e-12; ‖V‖ > 1: norm ≥ 0.1; logistic with V: off ½ by ≥ 0.01, without V: ½",
        ", ".join(f"{norm:g}: {size:.2g}" for norm, size in sizes.items())
        + f"; logistic off by {off:.3f}, without V {neutral:.0e}",
        (Table("state in a blackout", ("‖V‖", "norm at rest"), tuple(rows)),),
    )


PERSISTENCE = Theorem(
    key="masked.persistence",
    title="A neutral drive does not make a neutral state",
    statement=(
        "False: when nothing is seen, a recurrent network becomes neutral. A blackout makes the drive exactly 0; the "
        "state follows only where L‖V‖₂ < 1 and φ(0) = 0 (or V = 0). Tanh neurons with a symmetric V of largest "
        "eigenvalue above 1 settle at a nonzero stable state: they remember or imagine."
    ),
    hypotheses=("m = 0", "d = 0, w_c = 0"),
    source="derived here",
    about=(MaskedNeuron, Activation),
    checks=(bridge_field, drive_is_neutral, single, symmetric_net, norm_control),
)
