"""Sign flip as scenarios: the tracking table, what an accurate stepper makes of it, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import nlsim
from nlsim.core.state import leaves
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, ScenarioError
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.scenario.load import load_scenario
from nlsim.simulation.build import build
from nlsim.systems.hamiltonian.averaged_flip import largest_flip_step
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadraticEquations,
    LinearQuadraticReversal,
    linear_quadratic,
)
from nlsim.systems.hamiltonian.sign_flip import FlippedSignal, PeriodicFlip, SignFlip, TrackBall
from nlsim.systems.hamiltonian.tracking import TrackingReversal
from nlsim.systems.signals import Constant as Unchanging
from nlsim.systems.signals import PatchedCosine, SineTarget

SCALAR, NET, PATCHED = "hamiltonian/flip_scalar", "hamiltonian/flip_sinusoid", "hamiltonian/flip_patched"
REVERSED_SCALAR = (
    'system={name="linear_quadratic", drift=[[-1.0]], control=[[1.0]], tracking_weight=[[100.0]], '
    "control_weight=[[0.1]], start=[0.3], is_reversed=true}"
)
ERROR_ONLY = 'record.channels=["tracking_error"]'


def run(folder: Path, name: str, *overrides: str) -> xr.Dataset:
    outcome = nlsim.run(load_scenario(name, overrides=overrides), folder / "run.nc", force=True)
    assert outcome.ending == "reached_end", outcome.detail
    with nlsim.open_run(outcome.path) as data:
        return data.load()


def late_rms(data: xr.Dataset) -> float:
    times, error = data["time"].values, data["tracking_error"].values.ravel()
    return float(np.sqrt((error[times > times[-1] / 2] ** 2).mean()))


def relative(data: xr.Dataset, amplitude: float, frequency: float) -> float:
    times = data["time"].values
    target = amplitude * np.sin(frequency * times[times > times[-1] / 2])
    return late_rms(data) / float(np.sqrt((target**2).mean()))


@pytest.mark.parametrize(("q", "known"), [(10, 0.51), (100, 0.070), (1000, 0.0070)])
def test_scalar_table(q: int, known: float, tmp_path: Path) -> None:
    found = late_rms(run(tmp_path, SCALAR, f"system.tracking_weight=[[{q}]]", ERROR_ONLY))
    # the reference numbers have two digits: half a unit of the last is at most 1 %
    assert found == pytest.approx(known, rel=0.01)


def test_scalar_without_euler_does_not_track(tmp_path: Path) -> None:
    """RK4 solves the same flipped equations; what is left is to stay at x(0) = 0.3."""
    found = late_rms(run(tmp_path, SCALAR, "stepper.name=rk4", ERROR_ONLY))
    assert found == pytest.approx(0.83, rel=0.01)
    times = np.arange(20.0, 40.0, 0.01)
    assert found == pytest.approx(np.sqrt(((0.3 - np.sin(0.5 * times)) ** 2).mean()), rel=0.03)


@pytest.mark.parametrize(("q", "least", "most"), [(10, 0.99, 1.01), (100, 0.28, 0.34), (1000, 0.01, 0.033)])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_network_table(q: int, least: float, most: float, seed: int, tmp_path: Path) -> None:
    data = run(tmp_path, NET, f"system.tracking_weight={q}", f"seed={seed}", ERROR_ONLY)
    # two-digit ranges over seeds, each end by half a unit of its last digit
    assert least - 0.0005 <= relative(data, 0.5, 0.05) <= most


def test_network_without_euler_does_not_track(tmp_path: Path) -> None:
    assert relative(run(tmp_path, NET, "stepper.name=rk4", "until=200", ERROR_ONLY), 0.5, 0.05) > 0.9


def test_patched_cosine_is_tracked_and_its_energy_recorded(tmp_path: Path) -> None:
    data = run(tmp_path, PATCHED)
    times, error = data["time"].values, data["tracking_error"].values.ravel()
    target = data["activity"].values.ravel() - error
    assert late_rms(data) < 0.4 * np.sqrt((target[times > 200] ** 2).mean())
    # an odd piece is constant: energy only changes by what Euler's steps take out
    held = (times > 50.01) & (times < 99.99)
    assert np.ptp(target[held]) < 1e-12
    jump = int(np.searchsorted(times, 50.0))
    energy = data["hamiltonian"].values
    # the frame at the edge shows the inputs that end there; one step later the new target has raised q/2 (x − z)²
    gap = 50.0 * ((data["activity"].values.ravel() - target[jump + 1]) ** 2 - error**2)
    assert energy[jump + 1] - energy[jump] == pytest.approx(gap[jump], rel=0.05)
    assert gap[jump] > 5
    # of that energy less than a tenth is left at the end of the piece, and Euler took it
    end = int(np.searchsorted(times, 99.9))
    assert abs(energy[end]) < 0.1 * energy[jump + 1]
    assert data["lagrangian"].values.min() >= 0


def test_energy_is_kept_by_an_accurate_stepper(tmp_path: Path) -> None:
    data = run(tmp_path, PATCHED, "stepper.name=rk4", "until=100", "record.every=1", 'record.channels=["hamiltonian"]')
    times, energy = data["time"].values, data["hamiltonian"].values
    held = energy[(times > 50.5) & (times < 99.5)]
    # a pair of flipped RK4 steps multiplies a mode of rate μ by 1 − (μτ)⁶/72; weights act on the output through its
    # relaxation, so μ ≈ (q c² x²/r)^¼ ≈ 4 and 500 pairs lose 500 · 0.2⁶/72, some 0.05 %
    assert np.ptp(held) < 0.01 * abs(held).max()


def test_the_flip_and_the_start_are_those_of_the_scenario() -> None:
    scalar = build(load_scenario(SCALAR, overrides=["system.flip.half_period=0.04", "system.flip.offset=0.02"]))
    assert isinstance(scalar.system, SignFlip)
    assert scalar.system.policy == PeriodicFlip(0.04, 0.02)
    assert isinstance(scalar.signal, FlippedSignal)
    assert isinstance(scalar.signal.signal, SineTarget)
    problem = scalar.system.system.problem
    # S = B R⁻¹ Bᵀ = 1/0.1
    assert (float(problem.drift), float(problem.actuation), float(problem.tracking_weight)) == (-1.0, 10.0, 100.0)
    assert [float(leaf) for leaf in leaves(scalar.state)] == [0.3, 0.0]
    net = build(load_scenario(PATCHED, overrides=['system.flip={name="track_ball", radius=3.0}']))
    assert net.system.policy == TrackBall(3.0)
    assert isinstance(net.signal, PatchedCosine)
    x, w, p, pw = leaves(net.state)
    assert (x.shape, w.shape) == ((1, 5), (5, 5))
    assert float(w.abs().max()) <= 1
    assert float(w.abs().max()) > 0.5
    assert not p.any()
    assert not pw.any()
    other = build(load_scenario(PATCHED, overrides=["seed=1"]))
    assert not torch.equal(leaves(other.state)[1], w)


def test_numbers_are_of_the_dtype_asked_for() -> None:
    for name in (SCALAR, NET):
        made = build(load_scenario(name, overrides=["numerics.dtype=float32"]))
        field = made.system.vector_field(0.0, made.state, made.signal.piece(0.0)(0.0))
        assert {leaf.dtype for tree in (made.state, field) for leaf in leaves(tree)} == {torch.float32}


def test_reversed_costates_are_built(tmp_path: Path) -> None:
    assert isinstance(
        build(load_scenario(SCALAR, overrides=[REVERSED_SCALAR, ERROR_ONLY])).system, LinearQuadraticReversal
    )
    net = 'system={name="tracking", tracking_weight=1.0, is_reversed=true}'
    assert isinstance(build(load_scenario(NET, overrides=[net, ERROR_ONLY])).system, TrackingReversal)
    # d²x/dt² + 2 dx/dt + (1 + sq) x = s q z: after the transient e^{−t} the stationary gain sq/(1 + sq)
    data = run(tmp_path, SCALAR, REVERSED_SCALAR, "stepper.name=rk4", ERROR_ONLY.replace('"]', '", "activity"]'))
    response = 1000 / (1 + 1000 - 0.25 + 2j * 0.5)
    found = data.sel(time=30.0, method="nearest")
    expected = (response * np.exp(0.5j * float(found["time"]))).imag
    # RK4 at |rate|·dt = 0.32 keeps what moves slowly to better than 1e-6
    assert float(found["activity"].squeeze()) == pytest.approx(expected, abs=1e-6)


GRAPH = 'system={name="hamilton_equations", speed=1.0, network={inputs=0, neurons=3, arcs="all", outputs=[0]}'


@pytest.mark.parametrize("signal", ["sine_target", "patched_cosine"])
def test_a_graph_without_inputs_follows_a_target_and_flips(signal: str, tmp_path: Path) -> None:
    table = {
        "sine_target": 'signal={name="sine_target", frequency=0.5}',
        "patched_cosine": 'signal={name="patched_cosine", lowest_frequency=1, highest_frequency=1, interval=0.5}',
    }[signal]
    flip = ', flip={name="periodic", half_period=0.05}, dissipation=0.1}'
    shown = 'record.channels=["loss", "sign", "activity/1"]'
    data = run(tmp_path, NET, GRAPH + flip, table, shown, "until=2", "stepper.name=heun")
    # a frame at a flip shows the stretch that ends there
    assert data["sign"].values[:4].tolist() == [1, 1, -1, 1]
    assert np.isfinite(data["loss"].values).all()
    with pytest.raises(ScenarioError, match="not valid") as caught:
        load_scenario(NET, overrides=[GRAPH.replace("inputs=0", "inputs=-1") + "}"])
    assert "inputs" in str(caught.value.where)


def test_a_flip_has_no_order_of_layers_to_sweep() -> None:
    with pytest.raises(CapabilityError, match="Relaxing"):
        build(load_scenario(NET, overrides=["stepper.name=implicit_sweep"]))


REFUSED = {
    "samples to a controlled system": (
        SCALAR, ['signal={name="samples", dataset="digits", interval=1.0}'],
        ("follows a target", "signal=", "samples, with the system linear_quadratic", "sine_target", "costate_reversal"),
    ),
    "sinusoids to a tracking network": (
        NET, ['signal={name="sinusoids"}'],
        ("follows a target", "signal=", "sinusoids, with the system tracking", "patched_cosine", "costate_reversal"),
    ),
    "a target to a network with inputs": (
        "hamiltonian/digits", ['signal={name="sine_target", frequency=1.0}'],
        ("network has inputs", "signal=", "sine_target, with 64 inputs", "samples", "inputs = 0"),
    ),
    "flip of what is reversed": (
        SCALAR, ["system.is_reversed=true"],
        ("exclude each other", "table [system]", "is_reversed = true", "one of them", "Leave out"),
    ),
    "flip of a reversed network": (
        NET, ["system.is_reversed=true"],
        ("exclude each other", "table [system]", "is_reversed = true", "one of them", "Leave out"),
    ),
    "offset beyond the first stretch": (
        NET, ["system.flip.offset=0.05"],
        ("offset of the flip", "system.flip.offset=0.05", "0.05", "0.05", None),
    ),
    "half-period off the grid": (
        NET, ["system.flip.half_period=0.07"],
        ("'half_period' is not a multiple", "half_period=0.07", "0.07, with dt = 0.05", "0.05", None),
    ),
    "offset off the grid": (
        NET, ["system.flip.offset=0.01"],
        ("'offset' is not a multiple", "offset=0.01", "0.01, with dt = 0.05", "0.05", None),
    ),
    "pieces off the grid": (
        PATCHED, ["signal.interval=7.01"],
        ("'interval' is not a multiple", "interval=7.01", "7.01", "7", None),
    ),
    "no such flip": (
        NET, ["system.flip.name=periodc"],
        ("no flip of this name", "flip.name", "periodc", "track_ball", "'periodic'"),
    ),
    "frequencies the wrong way round": (
        PATCHED, ["signal.lowest_frequency=1.0"],
        ("range of frequencies", "lowest_frequency=1.0", "1 to 0.12", "0.12", None),
    ),
    "outputs beyond the neurons": (
        NET, ["system.outputs=6"], ("more outputs", "outputs=6", "6", "1 to 5", None),
    ),
    "drift that is not square": (
        SCALAR, ["system.drift=[[1.0, 2.0]]"], ("'drift'", "drift=", "1 rows of 2", "1 × 1", None),
    ),
    "ragged control": (
        SCALAR, ["system.drift=[[1, 0], [0, 1]]", "system.control=[[1.0], [1.0, 2.0]]"],
        ("'control'", "control=", "2 rows of 1 or 2", "2 × 1", None),
    ),
    "control weight of another size": (
        SCALAR, ["system.control=[[1.0, 1.0]]"], ("'control_weight'", "control_weight", "1 rows of 1", "2 × 2", None),
    ),
    "start of another length": (
        SCALAR, ["system.start=[1.0, 2.0]"], ("start does not fit", "start=", "2 numbers", "1, one", None),
    ),
    "control that costs nothing": (
        SCALAR, ["system.control_weight=[[0.0]]"],
        ("no", "control_weight=", "smallest eigenvalue of 0", "positive", None),
    ),
    "flipped Euler beyond √2/μ": (
        # μ² = 1 + 1e5/0.1, so μ = 1000.0005 and √2/μ = 0.00141421
        SCALAR, ["system.tracking_weight=[[100000]]", "until=2"],
        ("under a flip", "table [stepper]", "μ·dt = 10", "dt < 0.00141421", "below 0.00141421"),
    ),
    "flipped Euler beyond √2/μ, flipped every fourth step": (
        SCALAR, ["system.tracking_weight=[[2100]]", "system.flip.half_period=0.04"],
        ("under a flip", "table [stepper]", "μ·dt = 1.44", "√2", None),
    ),
    "a flipped linear-quadratic system beyond RK4's limit": (
        SCALAR, ["system.tracking_weight=[[100000]]", "stepper.name=rk4"],
        ("stability limit of 'rk4'", "table [stepper]", "rate·dt = 10", "dt < 0.002785", None),
    ),
    "a linear-quadratic system without a flip": (
        SCALAR, [REVERSED_SCALAR.replace(", is_reversed=true", "").replace("100.0", "4000.0")],
        ("stability limit of 'explicit_euler'", "table [stepper]", "rate·dt = 2.00", "dt < 0.0099", None),
    ),
    "a reversed linear-quadratic system": (
        # λ = −1 ± i √(s q): |λ|² = 1 + 10·4000, and 2.00002 is just beyond 2
        SCALAR, [REVERSED_SCALAR.replace("100.0", "4000.0")],
        ("stability limit of 'explicit_euler'", "table [stepper]", "rate·dt = 2.00", "dt < 0.0099", None),
    ),
    "a flipped network faster than the step": (
        NET, ["system.speed=41.0"],
        ("stability limit of 'explicit_euler'", "table [stepper]", "rate·dt = 2.05", "dt < 0.0487", None),
    ),
    "a reversed network whose costates are too fast": (
        NET, ['system={name="tracking", tracking_weight=1.0, is_reversed=true, speed=30.0, dissipation=11.0}'],
        ("stability limit of 'explicit_euler'", "table [stepper]", "rate·dt = 2.05", "dt < 0.0487", None),
    ),
    "error that pays": (
        SCALAR, ["system.tracking_weight=[[-1.0]]"],
        ("no", "tracking_weight=", "smallest eigenvalue of -1", "at least 0", None),
    ),
    "skew weight": (
        SCALAR,
        [
            "system.drift=[[1, 0], [0, 1]]", "system.control=[[1.0], [1.0]]", "system.start=[0, 0]",
            "system.tracking_weight=[[1, 1], [0, 1]]",
        ],
        ("no", "tracking_weight=", "not symmetric", "symmetric", None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_runs(case: str) -> None:
    name, overrides, (problem, where, given, allowed, advice) = REFUSED[case]
    with pytest.raises(ScenarioError) as caught:
        build(load_scenario(name, overrides=overrides))
    error = caught.value
    assert problem in error.problem
    assert where in str(error.where)
    assert given in str(error.given)
    assert allowed in str(error.allowed)
    assert advice is None or advice in str(error.advice)


LIMIT = {
    "flipped Euler just below √2/μ": (SCALAR, ["system.tracking_weight=[[1999.8]]"]),
    "flipped Euler whose border dissipation moves up": (
        SCALAR, ["system.tracking_weight=[[2010]]", "system.dissipation=-3.0"],
    ),
    "a reversed network just below 2": (
        NET, ['system={name="tracking", tracking_weight=1.0, is_reversed=true, speed=28.9, dissipation=11.0}'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMIT)
def test_a_step_within_the_limit_is_not_refused(case: str) -> None:
    name, overrides = LIMIT[case]
    assert build(load_scenario(name, overrides=[*overrides, ERROR_ONLY])).control.dt > 0


@pytest.mark.parametrize("is_below", [True, False])
def test_the_refused_step_is_where_flipped_runs_begin_to_grow(is_below: bool) -> None:
    """Two modes, μ = 2 and μ = 5: the faster one decides, by (1 − τ²μ²) a pair of steps."""
    matrix = torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    one = torch.eye(2, dtype=torch.float64)
    # μ² = a² + q: 9 + 16 and 0 + 4
    system = LinearQuadraticEquations(linear_quadratic(matrix, one, torch.diag(torch.tensor([16.0, 4.0])).to(one), one))
    tau = largest_flip_step(system.fastest_rate()) * (0.999 if is_below else 1.001)
    state = system.problem.initial_state(torch.ones(1, 2, dtype=torch.float64))
    flip = PeriodicFlip(tau)
    driven, first = flip.drive(Unchanging(Inputs())), state
    for n in range(4000):
        state = EXPLICIT_EULER.advance(SignFlip(system, flip), driven.piece(n * tau), state, n * tau, tau, 1)
    # |1 − 2 (1 ± 0.001)²| is 1 ∓ 0.004: over 2000 pairs e^∓8
    growth = float(state.activity.abs().max() / first.activity.abs().max())
    assert growth < 1e-3 if is_below else growth > 1e3


def test_a_weight_that_ignores_a_direction_is_allowed() -> None:
    """Q = v vᵀ has two eigenvalues 0; one of them is found as −7e-16."""
    v = np.array([1.0, 6 / 3 + 0.1, 0.7])
    weight = np.outer(v, v)
    assert np.linalg.eigvalsh(weight)[0] < 0
    overrides = [
        "system.drift=[[0, 1, 0], [0, 0, 1], [0, 0, 0]]",
        "system.control=[[0], [0], [1]]",
        "system.start=[0, 0, 0]",
        f"system.tracking_weight={weight.tolist()}",
    ]
    made = build(load_scenario(SCALAR, overrides=overrides))
    assert made.signal.piece(0.0)(math.pi).target.shape == (1, 3)
