"""What the page says of the learned unknown and of silent sensors, computed by the figures' own tool."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import nlsim
from nlsim.core.randomness import generator
from nlsim.data.catalogue import load, split
from nlsim.scenario.load import load_scenario
from nlsim.systems.masked.mechanism import MissingEntries
from nlsim.systems.masked.module import MaskedLinear

ROOT = Path(__file__).resolve().parents[2]
FRACTIONS = (0.0, 0.5, 0.9, 1.0)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures_masked", ROOT / "tools" / "figures" / "masked.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def states(tool: ModuleType) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    return tool.hidden_states(FRACTIONS)


def test_all_states_contract_to_one_point(states) -> None:
    hidden, outputs, labels = states
    spread = [np.linalg.norm(each - each.mean(0), axis=1).mean() for each in hidden]
    assert spread[0] > spread[1] > spread[2] > spread[3] == 0.0
    assert (hidden[3] == 0.0).all()
    assert len(labels) == 360
    assert (outputs[3] == outputs[3][0]).all()
    assert (outputs[0].argmax(1) == labels).mean() > 0.9


def test_the_page_prints_these_numbers(states) -> None:
    hidden, outputs, _ = states
    page = " ".join((ROOT / "docs" / "explanation" / "masked.md").read_text(encoding="utf-8").split())
    away = [np.linalg.norm(each, axis=1) for each in hidden]
    ends = f"from {away[0].mean():.2f} with nothing missing to {away[1].mean():.2f} at 50 %"
    assert f"{ends} and {away[2].mean():.2f} at 90 %" in page
    entropy = [-(each * np.log(each)).sum(1).mean() / np.log(3) for each in outputs]
    shown = [f"{each:.2f}".removeprefix("0") for each in entropy]
    assert f"from {shown[0]} to {shown[1]}, {shown[2]} and {shown[3]}" in page
    assert f"at 50 % the largest distance is {away[1].max():.2f}, complete it is {away[0].max():.2f}" in page


def test_the_masked_layer_says_the_same(states, tmp_path: Path) -> None:
    hidden, _, _ = states
    wine = load("wine")
    parts = split(wine, 0.2, generator(0, "split").permutation(len(wine.labels)), is_centred=True, is_scaled=True)
    inputs = np.tile(parts.test_inputs, (10, 1))
    outcome = nlsim.run(load_scenario("masked/wine", overrides=['record.channels=["weight/1"]']), tmp_path / "run.nc")
    with nlsim.open_run(outcome.path) as data:
        trained = torch.from_numpy(data["weight_1"].values[-1].astype(np.float64))
    layer = MaskedLinear(13, 12, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(trained[:, :-1])
        layer.bias.copy_(trained[:, -1])
        for fraction, expected in zip(FRACTIONS, hidden, strict=True):
            mask = torch.from_numpy(MissingEntries(fraction).observed(inputs, seed=1))
            # products of float32 weights in double: a few roundings of sums of 14 numbers of a few
            np.testing.assert_allclose(torch.tanh(layer(torch.from_numpy(inputs), mask)), expected, atol=1e-13)


def test_the_page_prints_how_far_off_silent_sensors_are(tool) -> None:
    page = " ".join((ROOT / "docs" / "explanation" / "masked.md").read_text(encoding="utf-8").split())
    truth, guess, centre = tool.readings()
    temperature, dew_point, all_three = (tool.misses(truth, guess, centre, title) for title in tool.SILENT)
    assert f"to {temperature['neumiss']:.2f} °F (root mean square; the mean" in page
    assert (
        f"off by {temperature['mean']:.1f}, the last reading before the outage by {temperature['last reading']:.2f}"
        in page
    )
    assert f"its dew point to {dew_point['neumiss']:.2f} °F" in page
    assert f"to {all_three['neumiss']:.2f} °F, and the last reading ({all_three['last reading']:.2f})" in page
