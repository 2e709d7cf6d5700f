"""The study of ways to have missing inputs, in small: every rule at every fraction, and what must be so by itself."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from nlsim.core.randomness import generator
from nlsim.data.catalogue import load
from nlsim.systems.masked.competitor import RULES

SEED, FRACTIONS = 3, (0.0, 0.5, 0.9, 1.0)
OPTIONS = argparse.Namespace(batch=32, fresh=False)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return ``tools/study/masked.py`` as a module, with 12 epochs on wine (107 training samples of 13 inputs)."""
    path = Path(__file__).parents[2] / "tools" / "study" / "masked.py"
    spec = importlib.util.spec_from_file_location("study_of_masked_inputs", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.EPOCHS, "wine", 12)
    return module


def plain_network(inputs: int, recipe) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, recipe.hidden), torch.nn.Tanh(), torch.nn.Linear(recipe.hidden, recipe.outputs)
    )


def trained_plainly(values: torch.Tensor, labels: torch.Tensor, recipe) -> torch.nn.Sequential:
    """Train an ordinary network as the study describes it, without any of its functions."""
    torch.manual_seed(SEED)
    network = plain_network(values.shape[1], recipe)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay, fused=True)
    for epoch in range(recipe.epochs):
        order = torch.as_tensor(generator(SEED, "order", epoch).permutation(len(labels)))
        for rows in order.split(recipe.batch):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(values[rows]), labels[rows]).backward()
            optimiser.step()
    return network


@pytest.fixture
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    data = load("wine")
    inputs = np.asarray(data.inputs)
    values = (inputs - inputs.mean(0)) / inputs.std(0)
    return torch.as_tensor(values, dtype=torch.float32), torch.as_tensor(np.asarray(data.labels))


def test_every_rule_comes_out_at_every_fraction(study: ModuleType) -> None:
    found = {rule: study.run_table("wine", rule, SEED, FRACTIONS, OPTIONS) for rule in RULES}
    share = 1 / 3
    for rule, values in found.items():
        assert values.shape == (len(FRACTIONS), len(study.MEASURES)), rule
        assert np.isfinite(values).all(), rule
        right, sure, unsure, _, calibration = values.T
        assert ((right >= 0) & (right <= 1) & (calibration >= 0) & (calibration <= 1)).all(), rule
        assert ((sure >= share) & (sure <= 1) & (unsure >= 0) & (unsure <= 1)).all(), rule
        # a third by guessing, and 72 test samples: 0.056 is one standard error; nine of them apart
        assert right[0] >= share + 9 * 0.056, rule
        # all-missing samples are alike, so one class is chosen, which has 0.4 of all samples at most
        assert right[-1] <= 0.4 + 4 * 0.058, rule
        assert unsure[-1] > unsure[0], rule
    assert np.array_equal(found["promissing"], study.run_table("wine", "promissing", SEED, FRACTIONS, OPTIONS))
    names = {rule: values.tobytes() for rule, values in found.items()}
    assert len(set(names.values())) >= len(RULES) - 1  # zero and mean imputation are one by two roads


@pytest.mark.parametrize("rule", ["promissing", "mpromissing"])
def test_with_nothing_missing_a_neutralizer_network_is_the_plain_one(study: ModuleType, rule: str, samples) -> None:
    """Trained and asked without holes: every weight and every answer to the bit."""
    values, labels = samples
    ones = torch.ones_like(values)
    recipe = study.Recipe(24, 3, 5, batch=32)
    network = study.train(rule, lambda epoch: (values, ones), labels, recipe, SEED)
    plain = trained_plainly(values, labels, recipe)
    for one, other in (("first.weight", "0.weight"), ("first.bias", "0.bias"), ("last.weight", "2.weight")):
        assert torch.equal(network.get_parameter(one), plain.get_parameter(other)), one
    with torch.no_grad():
        expected = plain(values).double().softmax(-1).numpy()
    assert np.array_equal(study.predict(network, values, ones), expected)
    torch.manual_seed(SEED)
    assert not torch.equal(plain_network(13, recipe)[0].weight, plain[0].weight)


@pytest.mark.parametrize("rule", ["promissing", "mpromissing"])
def test_trained_with_holes_it_answers_complete_samples_as_the_plain_network(study, rule: str, samples) -> None:
    values, labels = samples
    mask = torch.as_tensor(generator(1, "holes").random(values.shape) < 0.7).float()
    recipe = study.Recipe(24, 3, 5, batch=32)
    network = study.train(rule, lambda epoch: (values * mask, mask), labels, recipe, SEED)
    plain = plain_network(13, recipe)
    plain[0].load_state_dict(
        {name: each for name, each in network.first.state_dict().items() if name != "compensation"}
    )
    plain[2].load_state_dict(network.last.state_dict())
    with torch.no_grad():
        expected = plain(values).double().softmax(-1).numpy()
        unseen = torch.zeros(24) if network.first.compensation is None else network.first.compensation
        nothing = network.last(torch.tanh(unseen)).double().softmax(-1).numpy()
    assert np.array_equal(study.predict(network, values, torch.ones_like(values)), expected)
    # with nothing seen the first layer says 0, or w_c; sums of 25 numbers below 2 in float32: 25 · 2 · 6e-8
    silent = study.predict(network, values, torch.zeros_like(values))
    assert np.abs(silent - nothing).max() <= 3e-6
    assert np.abs(silent - expected).max() > 0.1


def test_the_report_counts_agreement_within_two_standard_errors(study: ModuleType, capsys) -> None:
    places = [study.GRID.index(fraction) for fraction in study.SHOWN]
    values = np.zeros((2, len(study.GRID), len(study.MEASURES)))
    for column, place in enumerate(places):
        known = study.REFERENCE["digits", "zero"][column].split("/")
        values[:, place, :3] = [float(each) for each in known]
    assert study.report("digits", {"zero": values}) == (12, 12)
    values[:, places[1], 0] += 0.01
    assert study.report("digits", {"zero": values}) == (11, 12)
    values[:, places[1], 0] += 0.01, -0.01  # still 0.01 apart, now with a standard error of 0.01
    assert study.report("digits", {"zero": values}) == (12, 12)
    assert "digits" in capsys.readouterr().out
