"""Nothing reads torch's global default dtype or device: change both, and every bit stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import nlsim
from nlsim.scenario.load import parse_scenario

SCENARIOS = {
    "digits": nlsim.load_scenario(
        "hamiltonian/digits", overrides=["until=0.5", "record.window=[]", "record.every=0.1"]
    ),
    "sinusoids": parse_scenario(
        """
until = 0.5
system = {name = "heavy_ball", mass = 2.0, network = {layers = [2, 3, 2], activation = "softplus"}}
signal = {name = "sinusoids"}
stepper = {name = "adaptive"}
record = {every = 0.1, channels = ["loss", "weight/1"]}
"""
    ),
}


@pytest.fixture
def other_defaults() -> Iterator[None]:
    """A default device on which nothing can be computed, and a default dtype that would show."""
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.fixture(params=SCENARIOS)
def expected(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    nlsim.run(SCENARIOS[request.param], tmp_path / f"{request.param}.nc")
    return tmp_path / f"{request.param}.nc"


def test_runs_do_not_change(expected: Path, other_defaults: None, tmp_path: Path) -> None:
    outcome = nlsim.run(SCENARIOS[expected.stem], tmp_path / "again.nc")
    with nlsim.open_run(expected) as before, nlsim.open_run(outcome.path) as after:
        assert outcome.ending == "reached_end"
        for name in before.data_vars:
            np.testing.assert_array_equal(before[name].values, after[name].values)
