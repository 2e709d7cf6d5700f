"""Remake the figures of docs/explanation/sign-flip.md and print its tables: python tools/figures/sign_flip.py.

Takes about two minutes. The numbers come from nlsim's own scenarios and functions; nothing is typed in.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nlsim
from nlsim.integrate.boundary import TwoPointProblem, TwoPointSolution
from nlsim.integrate.collocation import solve_two_point
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import RK4
from nlsim.integrate.loop import Loop
from nlsim.integrate.receding import RecedingHorizon, receding_horizon
from nlsim.report.figures import BLUE, GREEN, GREY, ORANGE, RED
from nlsim.systems.hamiltonian.averaged_flip import AveragedFlip, tracking_ratio
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticReversal
from nlsim.systems.hamiltonian.riccati import RiccatiFeedback
from nlsim.systems.signals import SineTarget
from nlsim.theorems.evidence import Table
from nlsim.theorems.hamiltonian.flip_runs import (
    NET_STEP,
    SCALAR,
    SCALAR_FREQUENCY,
    SCALAR_HORIZON,
    SCALAR_START,
    SCALAR_STEP,
    network_tracking,
    scalar_tracking,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "_static" / "sign-flip"
TARGET = SineTarget(1.0, SCALAR_FREQUENCY)
PERIOD = 2 * math.pi / SCALAR_FREQUENCY
FINE = 0.005
"""Distance of the points on which smooth baselines are compared, a sixth of their boundary layer 1/μ."""


def run(name: str, *overrides: str) -> xr.Dataset:
    """Run a shipped scenario and return what it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.nc"
        outcome = nlsim.run(nlsim.load_scenario(name, overrides=overrides), path)
        assert outcome.ending.is_success, outcome.detail
        with nlsim.open_run(path) as data:
            return data.load()


def output(data: xr.Dataset) -> np.ndarray[Any, Any]:
    return data["activity"].values.ravel()


def followed(data: xr.Dataset) -> np.ndarray[Any, Any]:
    """Return the target, which is the output less the error."""
    return output(data) - data["tracking_error"].values.ravel()


def spread(values: torch.Tensor) -> str:
    least, most = float(values.min()), float(values.max())
    return f"{least:.2g} to {most:.2g}" if f"{least:.2g}" != f"{most:.2g}" else f"{least:.2g}"


def network_rows() -> Table:
    """The net under three ways of stepping."""
    weights, seeds = [10.0, 100.0, 1000.0], range(3)
    ways = {
        f"Euler, τ = {NET_STEP:g}": {},
        f"Euler, τ = {NET_STEP / 2:g}": {"step": NET_STEP / 2},
        f"RK4, τ = {NET_STEP:g}": {"stepper": RK4},
    }
    found = {name: network_tracking(weights, seeds, **options).relative for name, options in ways.items()}
    rows = tuple((f"{q:g}", *(spread(each[k]) for each in found.values())) for k, q in enumerate(weights))
    return Table("rms of the error over that of the target, three seeds", ("q", *found), rows)


def formula_rows() -> Table:
    """The scalar problem: measured relative errors over whole periods, and the formula."""
    weights = [10.0, 100.0, 1000.0]
    steps = [PERIOD / round(PERIOD / tau) for tau in (0.01, 0.005, 0.0025)]
    found = [scalar_tracking(weights, step=tau, horizon=4 * PERIOD).relative.tolist() for tau in steps]
    rows = []
    for k, q in enumerate(weights):
        problem = replace(SCALAR, tracking_weight=q)
        cells = [
            f"{f[k]:.4f} ({tracking_ratio(problem, SCALAR_FREQUENCY, t):.4f})"
            for f, t in zip(found, steps, strict=True)
        ]
        rows.append((f"{q:g}", *cells))
    return Table("measured (formula)", ("q", *(f"τ = {t:.2g}" for t in steps)), tuple(rows))


@dataclass(frozen=True)
class Steered:
    """A trajectory with its price."""

    name: str
    knows: str
    times: np.ndarray[Any, Any]
    x: np.ndarray[Any, Any]
    cost: float
    rms: float


def of_quadrature(name: str, knows: str, found: TwoPointSolution | RecedingHorizon) -> Steered:
    def density(t: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        gap = points[:, 0] - torch.sin(SCALAR_FREQUENCY * t)
        return 0.5 * SCALAR.tracking_weight * gap.square() + 0.5 * SCALAR.actuation * points[:, 1].square()

    def late(t: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return (points[:, 0] - torch.sin(SCALAR_FREQUENCY * t)).square() * (t > SCALAR_HORIZON / 2)

    assert found.ending.is_success, found.detail
    rms = math.sqrt(float(found.quadrature.integral(late)) / (SCALAR_HORIZON / 2))
    cost = float(found.quadrature.integral(density))
    return Steered(name, knows, found.times.numpy(), found.state[:, 0].numpy(), cost, rms)


def rms_of(t: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> float:
    gap = (x - np.sin(SCALAR_FREQUENCY * t))[t > SCALAR_HORIZON / 2]
    return float(np.sqrt((gap**2).mean()))


def driven(name: str, knows: str, system: Any, state: Any, costate: Any) -> Steered:
    """Run a system forward accurately; its control is v = −b π/r."""
    times = [k * FINE for k in range(round(SCALAR_HORIZON / FINE) + 1)]
    loop = Loop(system, FixedStep(RK4, FINE), TARGET, state, until=SCALAR_HORIZON, record_times=times)
    seen = [(tick.t, float(tick.state.activity), float(costate(tick.state))) for tick in loop if tick.is_record]
    t, x, p = (np.array(each) for each in zip(*seen, strict=True))
    gap = x - np.sin(SCALAR_FREQUENCY * t)
    cost = np.trapezoid(0.5 * SCALAR.tracking_weight * gap**2 + 0.5 * SCALAR.actuation * p**2, t)
    return Steered(name, knows, t, x, float(cost), rms_of(t, x))


def path_cost(drift: float, t: np.ndarray[Any, Any], x: np.ndarray[Any, Any]) -> float:
    """Return what the plant pays to go along a path: v = (dx/dt − a x)/b, between points in a straight line.

    ∫ over a straight piece of a quadratic is exact by Simpson's rule; the target's curvature is of no weight.
    """
    steps = np.diff(t)
    middle, at = (t[1:] + t[:-1]) / 2, (x[1:] + x[:-1]) / 2
    velocity = np.diff(x) / steps

    def density(when: np.ndarray[Any, Any], where: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        v = (velocity - drift * where) / SCALAR.control
        gap = where - np.sin(SCALAR_FREQUENCY * when)
        return 0.5 * SCALAR.tracking_weight * gap**2 + 0.5 * SCALAR.control_weight * v**2

    pieces = (density(t[:-1], x[:-1]) + 4 * density(middle, at) + density(t[1:], x[1:])) / 6
    return float((steps * pieces).sum())


def flipped(drift: float, name: str, *overrides: str) -> Steered:
    data = run("hamiltonian/flip_scalar", *overrides)
    t, x = data["time"].values, output(data)
    return Steered(name, "the target now", t, x, path_cost(drift, t, x), rms_of(t, x))


def baselines(scalar: ScalarLinearQuadratic = SCALAR) -> list[Steered]:
    """Return every way of steering a scalar problem, which differs from SCALAR in its drift only."""
    a, s, q = scalar.drift, scalar.actuation, scalar.tracking_weight
    drift = f"system.drift=[[{a}]]"

    def field(times: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        x, p = points[:, 0], points[:, 1]
        return torch.stack((a * x - s * p, -q * (x - torch.sin(SCALAR_FREQUENCY * times)) - a * p), 1)

    start, end = torch.tensor([SCALAR_START], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    problem = TwoPointProblem(field, start, end)

    def grid(step: float) -> list[float]:
        return [k * step for k in range(round(SCALAR_HORIZON / step) + 1)]

    found = [of_quadrature("two-point solution", "all of the target", solve_two_point(problem, grid(0.01)))]
    for window in (10, 2):
        planned = receding_horizon(problem, grid(0.05), window=window)
        ahead = window * 0.05
        found.append(of_quadrature(f"receding horizon, {ahead:g} ahead", f"the target {ahead:g} ahead", planned))
    matrices, x = scalar.matrices(), start.reshape(1, 1)
    feedback = RiccatiFeedback(matrices)
    now = "the target now"
    found.append(driven("reversed Riccati", now, feedback, feedback.initial_state(x), feedback.costate))
    found.append(flipped(a, "sign flip, Euler, τ = 0.01", drift))
    half = ("stepper.dt=0.005", "system.flip.half_period=0.005", "record.every=0.005")
    found.append(flipped(a, "sign flip, Euler, τ = 0.005", drift, *half))
    found.append(flipped(a, "sign flip, RK4, τ = 0.01", drift, "stepper.name=rk4"))
    reversal = LinearQuadraticReversal(matrices)
    start_state = matrices.initial_state(x)
    found.append(driven("costate reversal (R)", now, reversal, start_state, lambda state: state.costate))
    nothing = np.array(grid(FINE))
    still = SCALAR_START * np.exp(a * nothing)
    found.append(Steered("no control", "nothing", nothing, still, path_cost(a, nothing, still), rms_of(nothing, still)))
    return found


def baseline_rows(stable: Sequence[Steered], unstable: Sequence[Steered]) -> Table:
    """Put the plant that decays by itself (a = −1) and the one that runs away (a = 1) side by side."""
    rows = tuple(
        (one.name, one.knows, price(one.cost), price(one.rms), price(other.cost), price(other.rms))
        for one, other in zip(stable, unstable, strict=True)
    )
    columns = ("way", "what it knows", "J, a = −1", "rms", "J, a = 1", "rms")
    return Table("costs and rms of x − z over the second half, q = 100, T = 40", columns, rows)


def price(value: float) -> str:
    return "runs away" if value > 1e6 else f"{value:.3g}"


def panel(figure: Figure, rows: int, columns: int, number: int, title: str, ylabel: str) -> Axes:
    axes = figure.add_subplot(rows, columns, number)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(xlabel="time [units of 1/c]", ylabel=ylabel)
    return axes


def legend(axes: Axes) -> None:
    """Put the legend beside the title, above all curves."""
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderpad=0)


def save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / name, dpi=100, pil_kwargs={"optimize": True})


def draw_sinusoid() -> None:
    """Outputs at q = 10 and 1000, by Euler and by RK4."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    number = 0
    for stepper, label in (("explicit_euler", "explicit Euler"), ("rk4", "RK4")):
        for q in (10, 1000):
            number += 1
            data = run("hamiltonian/flip_sinusoid", f"system.tracking_weight={q}", f"stepper.name={stepper}")
            axes = panel(figure, 2, 2, number, f"q = {q}, {label}", "output, target")
            axes.plot(data["time"], output(data), color=BLUE, lw=0.9, label="output")
            axes.plot(data["time"], followed(data), color=ORANGE, lw=1.6, ls="--", label="target")
            axes.set_ylim(-0.6, 0.6)
            legend(axes)
    save(figure, "sinusoid.png")


def draw_step() -> None:
    """Error at q = 1000 at three steps."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = panel(figure, 1, 1, 1, "q = 1000, explicit Euler, flip at every step", "|output − target|")
    for tau, colour in ((0.05, BLUE), (0.025, GREEN), (0.0125, RED)):
        data = run(
            "hamiltonian/flip_sinusoid",
            f"stepper.dt={tau}",
            f"system.flip.half_period={tau}",
            f"record.every={4 * tau}",
        )
        error = np.abs(data["tracking_error"].values.ravel())
        t = data["time"].values
        late = error[t > t[-1] / 2]
        rms = float(np.sqrt((late**2).mean()))
        axes.semilogy(t, error, color=colour, lw=0.9, label=f"τ = {tau:g}, rms {rms:.2g}")
    axes.set_ylim(1e-4, 2)
    legend(axes)
    save(figure, "step.png")


def draw_patched() -> None:
    """Output and energies of the patched cosines, by Euler and by RK4."""
    runs = {
        "explicit Euler": run("hamiltonian/flip_patched"),
        "RK4": run("hamiltonian/flip_patched", "stepper.name=rk4"),
    }
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for number, (label, data) in enumerate(runs.items(), start=1):
        axes = panel(figure, 2, 1, number, f"q = 100, {label}", "output, target")
        axes.plot(data["time"], output(data), color=BLUE, lw=0.9, label="output")
        axes.plot(data["time"], followed(data), color=ORANGE, lw=1.6, ls="--", label="target")
        legend(axes)
    save(figure, "patched.png")
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for number, (label, data) in enumerate(runs.items(), start=1):
        axes = panel(figure, 2, 1, number, f"q = 100, {label}", "energy [1/time]")
        axes.plot(data["time"], data["lagrangian"], color=BLUE, lw=0.9, label="Lagrangian")
        axes.plot(data["time"], data["hamiltonian"], color=RED, lw=1.2, ls="--", label="Hamiltonian")
        if label != "RK4":
            axes.set_yscale("symlog", linthresh=1.0)
        legend(axes)
    save(figure, "energy.png")


def averaged_path() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the averaged equation of the scalar problem at its step, from the same start."""
    problem = SCALAR.matrices()
    averaged: AveragedFlip[Any] = AveragedFlip(LinearQuadraticEquations(problem), TARGET.at, SCALAR_STEP)
    state = problem.initial_state(torch.full((1, 1), SCALAR_START, dtype=torch.float64))
    times = [k * 0.05 for k in range(round(SCALAR_HORIZON / 0.05) + 1)]
    loop = Loop(averaged, FixedStep(RK4, 0.05), TARGET, state, until=SCALAR_HORIZON, record_times=times)
    seen = [(tick.t, float(tick.state.activity)) for tick in loop if tick.is_record]
    t, x = zip(*seen, strict=True)
    return np.array(t), np.array(x)


def draw_scalar() -> None:
    """The flipped run on top of its averaged equation, and the same flips by RK4."""
    data, accurate = run("hamiltonian/flip_scalar"), run("hamiltonian/flip_scalar", "stepper.name=rk4")
    t, x = averaged_path()
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for number, end in enumerate((1.0, 25.0), start=1):
        axes = panel(figure, 1, 2, number, "the start" if end < 2 else "two periods of the target", "x, z")
        axes.set_xlabel("time [units of 1/|a|]")
        seen, near = data["time"].values <= end, t <= end
        axes.plot(data["time"][seen], output(data)[seen], color=BLUE, lw=1.0, label="flip, Euler")
        axes.plot(t[near], x[near], "o", color=GREEN, ms=3, markevery=1 if end < 2 else 10, label="averaged equation")
        axes.plot(accurate["time"][seen], output(accurate)[seen], color=RED, lw=1.0, label="flip, RK4")
        fine = np.linspace(0, end, 300)
        axes.plot(fine, np.sin(SCALAR_FREQUENCY * fine), color=ORANGE, lw=1.4, ls="--", label="target z")
        if end > 2:
            axes.set_ylim(-1.25, 1.9)
            axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=2)
    save(figure, "scalar.png")


def draw_baselines(paths: Sequence[Steered]) -> None:
    """Error of each way of steering, over the first two periods."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = panel(figure, 1, 1, 1, "scalar problem, q = 100", "|x − z|, largest within 0.5")
    axes.set_xlabel("time [units of 1/|a|]")
    styles = {
        "two-point solution": (GREY, "-"),
        "receding horizon, 0.5 ahead": ("black", ":"),
        "reversed Riccati": (GREEN, "-"),
        "sign flip, Euler, τ = 0.01": (BLUE, "-"),
        "sign flip, RK4, τ = 0.01": (RED, "--"),
        "costate reversal (R)": (ORANGE, "-"),
    }
    windows = np.arange(0, 40, 0.5)
    for each in paths:
        if each.name in styles:
            colour, line = styles[each.name]
            gap = np.abs(each.x - np.sin(SCALAR_FREQUENCY * each.times))
            largest = [gap[(each.times >= w - 1e-9) & (each.times <= w + 0.5)].max() for w in windows]
            axes.semilogy(windows + 0.25, largest, color=colour, ls=line, lw=1.4, label=each.name)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, "baselines.png")


def markdown(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = baselines()
    unstable = baselines(replace(SCALAR, drift=-SCALAR.drift))
    for found in (network_rows(), formula_rows(), baseline_rows(paths, unstable)):
        print(f"{found.title}\n\n{markdown(found)}\n", flush=True)
    draw_baselines(paths)
    draw_scalar()
    draw_sinusoid()
    draw_step()
    draw_patched()


if __name__ == "__main__":
    main()
