"""Inference learning run as scenarios: steps of any size learn, SGD at the same size does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import nlsim
from nlsim.errors import NlsimError
from nlsim.scenario.load import load_scenario
from nlsim.simulation.build import build
from nlsim.simulation.recording import Outcome

EVERY = ["record.every=200", 'record.channels=["loss", "test_accuracy"]']
DIGITS = ["until=4000", *EVERY, "signal.centred=true"]
"""200 images, each shown for 20."""
STEPS = (
    'system={name="backpropagation", descent={name="sgd", rate=%s}, '
    'network={layers=[64,32,32,10], output_activation="identity"}}'
)


def run(tmp_path: Path, name: str, overrides: list[str]) -> Outcome:
    return nlsim.run(load_scenario(name, overrides=overrides), tmp_path / "run.nc", force=True)


def test_implicit_steps_of_any_size_learn(tmp_path: Path) -> None:
    found = {
        rate: run(tmp_path, "inference/digits", [*DIGITS, f"system.precision.rate={rate}"]) for rate in (0.1, 100.0)
    }
    assert all(each.ending == "reached_end" for each in found.values())
    # chance is 0.1; a single image at the end may cost ten points
    assert all(each.last["test_accuracy"] > 0.4 for each in found.values())


@pytest.mark.parametrize(("rate", "learns"), [(0.1, True), (100.0, False)])
def test_explicit_steps_learn_while_they_are_small(rate: float, learns: bool, tmp_path: Path) -> None:
    outcome = run(tmp_path, "inference/digits", [*DIGITS, STEPS % rate])
    if learns:
        assert outcome.ending == "reached_end"
        assert outcome.last["test_accuracy"] > 0.4
    else:
        assert outcome.ending == "diverged"


@pytest.mark.parametrize(
    ("name", "least"), [("inference/mnist", 0.5), ("inference/mnist_adam", 0.75), ("inference/mnist_backprop", 0.75)]
)
def test_an_epoch_of_mnist_is_learned(name: str, least: float, tmp_path: Path) -> None:
    interval = 1 if name.endswith("backprop") else 2
    outcome = run(tmp_path, name, [f"until={63 * interval}", "record.every=1"])
    assert outcome.ending == "reached_end"
    assert outcome.last["test_accuracy"] > least


@pytest.mark.parametrize(
    "system",
    [
        'system={name="incremental_inference", rate=0.2, network={layers=[64,32,10], output_activation="identity"}}',
        'system={name="sequential_inference", update={name="mean_size", rate=1e-3}, '
        'network={layers=[64,32,10], output_activation="identity"}}',
        'system={name="backpropagation_proximal", rate=0.1, network={layers=[64,32,10], output_activation="identity"}}',
        'system={name="inference", update={name="lms", rate=0.1}, network={layers=[64,32,10], '
        'output_activation="identity", loss="cross_entropy"}, output="free"}',
        'system={name="inference", update={name="adam", rate=1e-3, is_normalised=true}, gains={top=0.5, bottom=0.4}, '
        'network={layers=[64,32,10], output_activation="identity", loss="cross_entropy"}, output="heuristic", '
        'precision={name="constant", gamma=0.3}}',
        'system={name="error_form", update={name="lms", rate=0.1}, '
        'network={layers=[64,32,10], output_activation="identity"}}',
        'system={name="fixed_prediction", descent={name="sgd", rate=0.1}, '
        'network={layers=[64,32,10], output_activation="identity"}}',
        'system={name="zero_divergence", descent={name="adam", rate=1e-3}, '
        'network={layers=[64,32,10], output_activation="identity"}}',
        'system={name="implicit_sgd", rate=0.1, network={layers=[64,16,10], output_activation="identity"}}',
    ],
    ids=[
        "incremental",
        "sequential",
        "BP-prox",
        "soft clamp",
        "gains",
        "error form",
        "fixed prediction",
        "Z-IL",
        "implicit SGD",
    ],
)
def test_other_systems_learn_too(system: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, "inference/digits", ["until=2000", *EVERY, system, "signal.interval=4.0"])
    assert outcome.ending == "reached_end"
    assert outcome.last["test_accuracy"] > 0.3


REFUSED = {
    "a decay too few": (["system.decay=[0.1]"], "one decay for each hidden layer", "decay"),
    "a precision too few": (
        ['system.precision={name="constant", gamma=[1.0, 2.0]}', "system.output=clamped"], "one precision a layer", "",
    ),
    "gains that are scaled": (["system.gains={top=1.0, bottom=1.0}"], "leave nothing to scale", "gains"),
    "no intervals": (['signal={name="sinusoids"}'], "has no intervals", "signal"),
    "an output that is not linear": (["system.network.output_activation=tanh"], "linear output", "output_activation"),
    "a heuristic without a softmax": (["system.output=heuristic"], "softmax", ""),
    "a graph": (
        ['system.network={inputs=64, neurons=12, arcs="all", outputs=[75]}'], "", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_runs(case: str) -> None:
    overrides, problem, where = REFUSED[case]
    with pytest.raises(NlsimError) as caught:
        build(load_scenario("inference/digits", overrides=overrides))
    assert problem in str(caught.value)
    assert where in str(caught.value.where)


@pytest.mark.parametrize(
    ("stepper", "interval"),
    [
        ('{name="implicit_sweep", dt=1.0}', 20.0),
        ('{name="exponential_sweep", dt=100.0}', 2000.0),
        ('{name="exponential_euler", dt=1.0}', 20.0),
        ('{name="etdrk2", dt=1.0}', 10.0),
        ('{name="etdrk4", dt=2.0}', 10.0),
    ],
)
def test_activities_settle_under_sweeps_and_exponential_steps(stepper: str, interval: float, tmp_path: Path) -> None:
    settings = [f"until={200 * interval}", f"signal.interval={interval}", f"record.every={10 * interval}"]
    channels = 'record.channels=["loss", "test_accuracy"]'
    outcome = run(tmp_path, "inference/digits", [*settings, channels, "signal.centred=true", f"stepper={stepper}"])
    assert outcome.ending == "reached_end"
    # as with Euler steps: chance is 0.1
    assert outcome.last["test_accuracy"] > 0.4


def test_a_baseline_that_only_jumps_has_nothing_to_sweep(tmp_path: Path) -> None:
    with pytest.raises(NlsimError, match="Relaxing") as caught:
        build(load_scenario("inference/digits", overrides=[STEPS % 0.1, "stepper.name=implicit_sweep"]))
    assert "inference" in str(caught.value.advice)
