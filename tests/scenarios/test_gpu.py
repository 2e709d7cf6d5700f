"""On a CUDA device: the demo learns there, and the numbers are those of the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nlsim
from nlsim.core.state import leaves
from nlsim.simulation.build import build

pytestmark = pytest.mark.gpu

SHORT = ["until=1.0", "record.window=[]", "numerics.dtype=float64"]


def test_the_demo_learns(tmp_path: Path) -> None:
    outcome = nlsim.run(
        nlsim.load_scenario("hamiltonian/digits", overrides=["numerics.device=cuda"]), tmp_path / "a.nc"
    )
    assert outcome.ending == "reached_end"
    assert outcome.last["test_accuracy"] >= 0.95


def test_every_tensor_is_where_it_was_told() -> None:
    simulation = build(nlsim.load_scenario("hamiltonian/digits", overrides=["numerics.device=cuda"]))
    inputs = simulation.signal.piece(0.0)(0.0)
    assert {leaf.device.type for leaf in (*leaves(simulation.state), *leaves(inputs))} == {"cuda"}


def test_cpu_and_gpu_agree(tmp_path: Path) -> None:
    """In float64 a hundred steps differ by the order of sums only: a thousand roundings of 2e-16."""
    frames = []
    for device in ("cpu", "cuda"):
        source = nlsim.load_scenario("hamiltonian/digits", overrides=[*SHORT, f"numerics.device={device}"])
        nlsim.run(source, tmp_path / f"{device}.nc")
        with nlsim.open_run(tmp_path / f"{device}.nc") as data:
            frames.append(data["weight_2"].values)
    np.testing.assert_allclose(frames[0], frames[1], rtol=0, atol=1e-12)
