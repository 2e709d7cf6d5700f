"""Groups of inputs, soft masks and nudges as scenarios name them, run, and compared with closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import logsumexp
from support.learning import draw

import nlsim
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError, ScenarioError
from nlsim.scenario import model
from nlsim.scenario.load import load_scenario, parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.signals import held_samples
from nlsim.systems.masked.learning import GatedSignal
from nlsim.systems.masked.shares import GroupedMask
from nlsim.systems.masked.signal import HeldMask, RandomMask, Reliability
from nlsim.systems.signals import Constant

NEURONS = """\
seed = 4
until = 4.0
[system]
name = "masked_neuron"
inputs = 5
neurons = 2
bias = 2.0
[signal]
name = "sinusoids"
amplitude = 0.0
[mask]
name = "outages"
outages = [{ sensors = [1, 2, 3], start = 1.0, stop = 2.0 }, { sensors = [2], start = 3.0, stop = 4.0 }]
groups = [1, 3, 1]
[stepper]
name = "rk4"
dt = 0.05
[numerics]
dtype = "float64"
[record]
every = 0.5
channels = ["pre_activation", "observed_fraction"]
"""

ENERGY = """\
seed = 2
until = 60.0
[system]
name = "masked_energy"
inputs = 13
neurons = 4
activation = "identity"
bias = [0.5, -1.0, 2.0, 0.25]
nudge = 0.5
[signal]
name = "samples"
dataset = "wine"
batch = 6
interval = 60.0
centred = true
scaled = true
[mask]
name = "random"
rate = 0.5
interval = 60.0
[stepper]
name = "rk4"
dt = 0.5
[numerics]
dtype = "float64"
[record]
every = 60.0
channels = ["activity", "energy", "distance_to_target", "observed_fraction"]
"""


def run(folder: Path, text: str, *overrides: str) -> xr.Dataset:
    outcome = nlsim.run(parse_scenario(text, overrides=list(overrides)), folder / "run.nc", force=True)
    assert outcome.ending == "reached_end"
    with nlsim.open_run(outcome.path) as data:
        return data.load()


def test_a_group_carries_one_share_of_the_bias(tmp_path: Path) -> None:
    data = run(tmp_path, NEURONS)
    times, fraction = data["time"].values, data["observed_fraction"].values[:, 0]
    # three variables: without the second a third is gone, without one of its three columns a ninth
    expected = np.where((times > 1) & (times <= 2), 2 / 3, np.where(times > 3, 8 / 9, 1.0))
    np.testing.assert_allclose(fraction, expected, rtol=1e-15, atol=0)  # a few sums and a quotient of numbers up to 1
    # inputs are 0, so that the drive is μ b
    np.testing.assert_allclose(data["pre_activation"].values, (2.0 * expected)[:, None, None].repeat(2, 2), rtol=2e-15)
    alike = run(tmp_path, NEURONS, "mask.groups=[1, 1, 1, 1, 1]")["observed_fraction"].values[:, 0]
    np.testing.assert_allclose(alike[(times > 1) & (times <= 2)], 2 / 5, rtol=1e-15)


@pytest.mark.parametrize("name", ["masked_neuron", "masked_energy"])
def test_both_populations_take_groups(name: str) -> None:
    chosen = f'system={{name="{name}", inputs=5, neurons=2}}'
    system = build(parse_scenario(NEURONS, overrides=[chosen, 'record.channels=["observed_fraction"]'])).system
    np.testing.assert_allclose(system.shares, [1 / 3, 1 / 9, 1 / 9, 1 / 9, 1 / 3], rtol=1e-15)


def test_a_random_mask_draws_whole_groups() -> None:
    mask = 'mask={name="random", rate=0.5, interval=0.25, groups=[2, 3, 59]}'
    simulation = build(load_scenario("hamiltonian/digits", overrides=[mask, "signal.batch=32"]))
    inner = simulation.signal.signal
    seen = torch.stack([inner.piece(0.25 * k)(0.25 * k).mask for k in range(8)])
    assert seen.shape == (8, 32, 64)
    blocks = seen.split([2, 3, 59], -1)
    assert all(bool((block == block[..., :1]).all()) for block in blocks)
    # 256 draws of three: five standard errors of a mean of ½; and no two variables alike
    means = torch.stack([block[..., 0].mean() for block in blocks])
    assert bool(((means - 0.5).abs() <= 5 * 0.5 / 16).all())
    assert not torch.equal(blocks[0][..., 0], blocks[1][..., 0])


def test_a_network_learns_its_first_biases_by_the_shares(tmp_path: Path) -> None:
    groups = 'mask={name="outages", outages=[{sensors=[0, 1], start=0.0, stop=9.0}], groups=[2, 62]}'
    text = ["until=0.5", "record.window=[]", "record.every=0.25", 'record.channels=["observed_fraction"]']
    source = load_scenario("hamiltonian/digits", overrides=[groups, *text])
    constant = build(source).signal.piece(0.0)(0.0).input[..., -1]
    assert constant.shape[-1] > 0
    # one of two variables, of which one has 62 columns: a few roundings of float32 in a sum of 64 shares
    assert float((constant - 0.5).abs().max()) <= 64 * 6e-8
    outcome = nlsim.run(source, tmp_path / "run.nc")
    with nlsim.open_run(outcome.path) as data:
        assert float(np.abs(data["observed_fraction"].values - 0.5).max()) <= 64 * 6e-8


def test_held_out_samples_are_weighed_by_the_same_shares() -> None:
    # the sex of some penguins is not known; as one of two variables it takes half of the bias with it
    text = [
        'signal={name="samples", dataset="penguins", batch=8, interval=0.25, centred=true, scaled=true}',
        'system.network={layers=[5, 6, 3], output_activation="identity", loss="cross_entropy"}',
        'mask={name="missing_values", groups=[4, 1]}',
        'numerics.dtype="float64"',
    ]
    source = load_scenario("masked/biopsy", overrides=text)
    simulation = build(source)
    weight, above = draw(61, 6, 6), draw(62, 3, 7)
    weight[:, -1] *= 10  # a bias that matters
    state = replace(simulation.state, weight=(weight, above))
    read = simulation.plan.read(0.0, state, simulation.signal.piece(0.0)(0.0))

    assert isinstance(source.values.signal, model.Samples)
    shown, targets = held_samples(source, source.values.signal, torch.empty(0, dtype=torch.float64)).test
    there = ~np.isnan(shown.numpy())
    assert 0 < int((there[:, :4].all(1) & ~there[:, 4]).sum()) < len(there)
    w, v = weight.numpy(), above.numpy()

    def by_hand(shares: list[float]) -> tuple[float, float]:
        fraction = (there * np.array(shares)).sum(1, keepdims=True)
        hidden = np.tanh(np.nan_to_num(shown.numpy()) @ w[:, :-1].T + fraction * w[:, -1])
        output = hidden @ v[:, :-1].T + v[:, -1]
        right = output.argmax(1) == targets.numpy().argmax(1)
        return float((logsumexp(output, 1) - (output * targets.numpy()).sum(1)).sum()), float(right.mean())

    loss, accuracy = by_hand([0.125, 0.125, 0.125, 0.125, 0.5])
    # a sum of some 130 losses below 10, each of some tens of roundings
    assert float(read["test_loss"]) == pytest.approx(loss, rel=1e-13)
    assert float(read["test_accuracy"]) == accuracy
    assert abs(by_hand([0.2] * 5)[0] - loss) >= 0.1


def test_shares_of_others_are_refused_by_a_gated_signal() -> None:
    with pytest.raises(NlsimError, match="one share for each input"):
        GatedSignal(Constant(Inputs(torch.ones(1, 3))), shares=torch.tensor([0.5, 0.5]))


def test_grouped_masks_move_and_hold_as_what_they_spread() -> None:
    half = torch.tensor([0.5, 0.5])
    smooth = GroupedMask(Reliability(half, 0.5 * half, half, torch.tensor([0.0, 1.0])), (1, 2))
    shown = smooth.piece(0.0)(0.7)
    assert shown[1] == shown[2] != shown[0]
    held = GroupedMask(RandomMask(2, 0.5, 0.25), (1, 2))
    assert isinstance(held.piece(0.0), HeldMask)
    assert held.edge_after(0.1) == 0.25


SOFT = 'mask={name="reliability", level=[0.5, 0.9, 0.2, 1.0, 0.6], amplitude=[0.5, 0.1, 0.1, 0.0, 0.3], frequency=3.0'


def test_a_soft_mask_fades_the_bias_as_the_inputs(tmp_path: Path) -> None:
    phase = [0.0, 0.5, 1.0, 1.5, 2.0]
    data = run(tmp_path, NEURONS, f"{SOFT}, phase={phase}}}", "record.every=0.25")
    level, amplitude = np.array([0.5, 0.9, 0.2, 1.0, 0.6]), np.array([0.5, 0.1, 0.1, 0.0, 0.3])
    times = data["time"].values[:, None]
    expected = (level + amplitude * np.sin(3.0 * times + np.array(phase))).mean(1)
    # five sines, products and sums of numbers up to 1
    np.testing.assert_allclose(data["observed_fraction"].values[:, 0], expected, atol=1e-15, rtol=0)
    np.testing.assert_allclose(data["pre_activation"].values[:, 0, 1], 2.0 * expected, atol=2e-15, rtol=0)
    assert np.ptp(expected) > 0.1


def test_phases_are_drawn_from_the_seed() -> None:
    def shown(*more: str) -> torch.Tensor:
        chosen = [f"{SOFT}}}", "record.every=4.0", *more]
        mask = build(parse_scenario(NEURONS, overrides=chosen)).signal.piece(0.0)(0.4).mask
        assert mask is not None
        return mask[0]

    assert torch.equal(shown(), shown())
    assert bool((shown() != shown("seed=5"))[torch.tensor([0, 1, 2, 4])].all())
    assert float(shown()[3]) == 1.0  # an amplitude of 0


@pytest.mark.parametrize("name", ["hamiltonian/digits", "masked/inference"])
def test_networks_learn_behind_a_soft_mask(name: str, tmp_path: Path) -> None:
    chosen = [
        'mask={name="reliability", level=0.6, amplitude=0.4, frequency=2.0}',
        "record.window=[]",
        'record.channels=["loss", "observed_fraction"]',
        *(["until=20", "record.every=4"] if "inference" in name else ["until=2", "record.every=0.4"]),
    ]
    outcome = nlsim.run(load_scenario(name, overrides=chosen), tmp_path / "run.nc")
    assert outcome.ending == "reached_end"
    with nlsim.open_run(outcome.path) as data:
        fraction = data["observed_fraction"].values
        assert np.isfinite(data["loss"].values).all()
    assert len(np.unique(fraction[:, 0])) == len(fraction)
    # the mean of 64 sines with random phases moves little about 0.6: five times 0.4/√(2·64)
    assert np.abs(fraction - 0.6).max() <= 5 * 0.4 / np.sqrt(128)


def test_a_nudge_pulls_the_last_neurons_to_the_classes(tmp_path: Path) -> None:
    data = run(tmp_path, ENERGY)
    simulation = build(parse_scenario(ENERGY))
    shown = simulation.signal.piece(0.0)(0.0)
    weight, bias = simulation.system.weight.numpy(), np.array([0.5, -1.0, 2.0, 0.25])
    mask = shown.mask.numpy()
    drive = (mask * shown.input.numpy()) @ weight.T + mask.mean(1, keepdims=True) * bias
    # linear neurons that do not act on each other rest at (C m + β z)/(1 + β), free ones at C m
    expected = drive.copy()
    expected[:, 1:] = (drive[:, 1:] + 0.5 * shown.target.numpy()) / 1.5
    # e^(−60) is left of the start; a few roundings of numbers up to about 5
    np.testing.assert_allclose(data["activity"].values[-1], expected, atol=2e-14, rtol=0)
    miss = np.linalg.norm(expected[:, 1:] - shown.target.numpy(), axis=1)
    np.testing.assert_allclose(data["distance_to_target"].values[-1], miss, atol=4e-14, rtol=0)
    energy = 0.5 * np.square(expected).sum(1) - (expected * drive).sum(1) + 0.25 * miss**2
    np.testing.assert_allclose(data["energy"].values[-1], energy, atol=2e-13, rtol=0)
    free = run(tmp_path, ENERGY, "system.nudge=0", 'record.channels=["activity"]')
    np.testing.assert_allclose(free["activity"].values[-1], drive, atol=2e-14, rtol=0)


REFUSED = {
    "groups that do not add up": (NEURONS, ["mask.groups=[1, 3]"], "do not cover", "groups"),
    "an empty group": (NEURONS, ["mask.groups=[0, 5]"], "greater than or equal to 1", "mask.groups"),
    "no groups": (NEURONS, ["mask.groups=[]"], "'groups' is not valid", "mask.groups"),
    "a list of others": (NEURONS, ['mask={name="reliability", level=[0.5, 0.5]}'], "'level' does not fit", "mask"),
    "beyond 1": (NEURONS, ['mask={name="reliability", level=0.9, amplitude=0.2}'], "leaves the range", "mask"),
    "below 0": (
        NEURONS, ['mask={name="reliability", level=[0.5, 0.5, 0.5, 0.5, 0.1], amplitude=0.2}'], "leaves the range",
        "mask",
    ),
    "no probability": (NEURONS, ['mask={name="reliability", level=1.5}'], "level", "mask"),
    "nothing to be nudged to": (
        NEURONS, ['system={name="masked_energy", inputs=5, neurons=2, nudge=0.1}'], "no target", "system",
    ),
    "too few neurons": (ENERGY, ["system.neurons=2", "system.bias=1.0"], "fewer neurons than classes", "neurons"),
    "a flat start": (ENERGY, ['system.activation="relu"'], "never move", "activation"),
    "no minimum": (ENERGY, ["system.nudge=-1.0"], "nudge", "nudge"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_runs(case: str) -> None:
    text, overrides, problem, where = REFUSED[case]
    with pytest.raises(ScenarioError) as caught:
        build(parse_scenario(text, overrides=overrides))
    assert problem in str(caught.value)
    assert where in str(caught.value.where)


QUARTER = np.pi / 2
FADING = {
    "always": ("level=0.0", []),
    "at the start": (f"level=0.5, amplitude=0.5, phase={-QUARTER}, frequency={QUARTER}", []),
    "at a later step": (f"level=0.5, amplitude=0.5, phase=0.0, frequency={QUARTER}", []),
    "for ever": (f"level=0.5, amplitude=0.5, phase={-QUARTER}, frequency=0.0", []),
    "at rates of their own": (
        f"level=0.25, amplitude=0.25, phase={-QUARTER}, frequency={[0.5 * (1 + j % 3) * QUARTER for j in range(64)]}",
        [],
    ),
    "between the steps, of an adaptive stepper": (
        "level=0.5, amplitude=0.5, phase=0.0, frequency=1.0", ['stepper={name="adaptive"}'],
    ),
}  # fmt: skip
NOT_FADING = {
    "between the steps": ("level=0.5, amplitude=0.5, phase=0.0, frequency=1.0", []),
    "each at its time": ("level=0.5, amplitude=0.5, frequency=1.0", []),
    "but one": (
        f"level={[0.5] * 63 + [1.0]}, amplitude={[0.5] * 63 + [0.0]}, phase={-QUARTER}, frequency={QUARTER}", [],
    ),
    "after the end": (f"level=0.5, amplitude=0.5, phase={-QUARTER + 1e-3}, frequency=1e-6", []),
    "with a normaliser": (
        f"level=0.5, amplitude=0.5, phase={-QUARTER}, frequency={QUARTER}",
        ['system.update={name="nlms", epsilon=0.001}', 'system.precision={name="constant"}'],
    ),
}  # fmt: skip
SHORT = ["until=40", "record.every=4"]


@pytest.mark.parametrize("case", FADING)
def test_a_soft_mask_that_fades_altogether_is_a_blackout(case: str) -> None:
    mask, more = FADING[case]
    with pytest.raises(ScenarioError, match="divides by 0"):
        build(load_scenario("masked/inference", overrides=[f'mask={{name="reliability", {mask}}}', *SHORT, *more]))


@pytest.mark.parametrize("case", NOT_FADING)
def test_a_soft_mask_that_leaves_something_is_none(case: str) -> None:
    mask, more = NOT_FADING[case]
    build(load_scenario("masked/inference", overrides=[f'mask={{name="reliability", {mask}}}', *SHORT, *more]))


def test_what_only_just_leaves_something_runs(tmp_path: Path) -> None:
    mask = 'mask={name="reliability", level=0.5, amplitude=0.5, phase=0.0, frequency=1.0}'
    outcome = nlsim.run(load_scenario("masked/inference", overrides=[mask, *SHORT]), tmp_path / "run.nc")
    assert outcome.ending == "reached_end"
