"""Remake the figures of docs/explanation/masked.md and print its numbers: python tools/figures/masked.py [--seeds 3].

Takes some minutes, most of them for the table of inference learning; ``--seeds 0`` leaves it out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nlsim
from nlsim.core.randomness import generator
from nlsim.data.catalogue import load, split
from nlsim.data.series import load_series
from nlsim.report.figures import BLUE, GREEN, GREY, ORANGE, RED
from nlsim.simulation.build import build
from nlsim.systems.masked.mechanism import MissingEntries

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "_static" / "masked"
NEUMISS = (
    'system={name="neumiss", inputs=64, ridge=0.01}',
    'signal={name="samples", dataset="digits", batch=359, interval=2000.0}',
    'mask={name="random", rate=0.7, interval=2000.0}',
    'stepper={name="exponential_sweep", dt=0.5}',
    'record={every=2000.0, channels=["completed"]}',
    "until=2000",
)


def run(name: str, *overrides: str) -> xr.Dataset:
    """Run a shipped scenario and return what it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = nlsim.run(nlsim.load_scenario(name, overrides=overrides), Path(folder) / "run.nc")
        assert outcome.ending.is_success, outcome.detail
        with nlsim.open_run(outcome.path) as data:
            return data.load()


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def blackout() -> None:
    """Draw neurons through an outage and a blackout, for both designs, and print how far they are from neutral."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.2))
    for axes, design, colour in zip(panels, ("forget", "hold"), (BLUE, RED), strict=False):
        data = run("masked/blackout", f"system.outage={design}")
        times, states = data["time"].values, data["activity"].values[:, 0]
        axes.plot(times, states, color=colour, lw=1)
        axes.set(ylabel="activity x", title=f"outage = {design}", ylim=(-0.8, 1.15))
        before, after = (data["distance_to_neutral"].sel(time=t, method="nearest").item() for t in (20, 30))
        print(f"{design}: distance to neutral {before:.6g} at 20, {after:.6g} at 30, ratio {after / before:.6g}")
    going_on = run("masked/blackout", "system.recurrent_norm=2.0", "system.is_symmetric=true")
    before, after = (going_on["distance_to_neutral"].sel(time=t, method="nearest").item() for t in (20, 30))
    print(f"forget, symmetric V of norm 2: distance to neutral {before:.4g} at 20, {after:.4g} at 30")
    panels[2].plot(times, data["observed_fraction"].values[:, 0], color=ORANGE, lw=1.5)
    panels[2].set(xlabel="time", ylabel="observed\nfraction μ", ylim=(-0.08, 1.08))
    for axes in panels:
        tidy(axes)
        axes.axvspan(10, 20, color=GREY, alpha=0.1, lw=0)
        axes.axvspan(20, 30, color=GREY, alpha=0.28, lw=0)
    for x, text in ((15, "two sensors out"), (25, "blackout")):
        panels[0].text(x, 0.98, text, ha="center", fontsize=9)
    figure.savefig(FOLDER / "blackout.png", dpi=90)


def failing_sensors() -> None:
    """Draw weights of dead and live sensors through an outage, without inertia and with it, and print how they move."""
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    momentum = run("masked/failing_sensors", "system.eta=0.1", "system.beta=0.005")
    plain = run("masked/failing_sensors")
    weights = plain["weight_1"].values
    lines = (
        (panels[0], plain, slice(0, 4), RED, "pixels 27, 28, 35, 36: out from 500 to 1000"),
        (panels[1], plain, slice(4, 8), BLUE, "pixels 18, 20, 42, 44: always there"),
        (
            panels[2],
            momentum,
            slice(0, 4),
            GREEN,
            "pixels 27, 28, 35, 36 in a network with inertia (eta = 0.1, beta = 0.005)",
        ),
    )
    for axes, data, which, colour, title in lines:
        found = data["weight_1"].values[:, 0, which]
        axes.plot(data["time"].values, found, color=colour, lw=1.2, alpha=0.85)
        axes.set(ylabel="weight", title=title)
        axes.axvspan(500, 1000, color=GREY, alpha=0.18, lw=0)
        tidy(axes)
    panels[2].set(xlabel="time (images)")
    times = plain["time"].values
    out = (times >= 500) & (times <= 1000)
    dead, live, inert = weights[out][..., :4], weights[out][..., 4:], momentum["weight_1"].values[out][..., :4]
    print(f"frames in the outage: {out.sum()}, of which dead weights are the same bits: {same_bits(dead)}")
    for name, values in (("dead", dead), ("live", live), ("dead, with inertia", inert)):
        moved = np.abs(values[-1] - values[0])
        print(f"{name}: moved through the outage by {moved.min():.3g} to {moved.max():.3g}")
    for name, start, stop in (("before", 0, 500), ("after", 1000, 1400)):
        first, last = (plain["weight_1"].sel(time=t, method="nearest").values[..., :4] for t in (start, stop))
        print(f"dead, {name}: moved by {np.abs(last - first).min():.3g} to {np.abs(last - first).max():.3g}")
    complete = run("masked/failing_sensors", 'mask={name="random", rate=1.0, interval=1400.0}')
    for name, data in (("outage", plain), ("nothing missing", complete)):
        found = [100 * data["test_accuracy"].sel(time=t, method="nearest").item() for t in (500, 1000, 1400)]
        print(f"test accuracy, {name}: " + ", ".join(f"{each:.1f}" for each in found) + " % at 500, 1000, 1400")
    figure.savefig(FOLDER / "failing_sensors.png", dpi=110)


def same_bits(values: np.ndarray) -> int:
    """Return how many frames equal the first, bit by bit."""
    return int((values == values[0]).all(axis=(1, 2)).sum())


def neumiss() -> None:
    """Print how well NeuMiss infers the missing pixels of digits, beside their mean over the training images."""
    source = nlsim.load_scenario("masked/blackout", overrides=NEUMISS)
    shown = build(source).signal.piece(0.0)(0.0)
    assert shown.input is not None
    assert shown.mask is not None
    system = build(source).system
    found = run("masked/blackout", *NEUMISS)["completed"].values[-1]
    missing = shown.mask.numpy() == 0
    image = shown.input.numpy()
    for name, guess in (("NeuMiss", found), ("mean", np.broadcast_to(system.mean.numpy(), image.shape))):
        print(f"{name}: rms error of missing pixels {np.sqrt(np.square(guess - image)[missing].mean()):.4f}")


def hidden_states(fractions: tuple[float, ...]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Return what the network of masked/wine makes of its test samples as more is missing: hidden layer and output.

    The draws are nested: what is missing at one fraction is missing at every larger one. Ten draws a sample. The last
    array holds the classes.
    """
    data = run("masked/wine", 'record.channels=["weight/1", "weight/2"]')
    first, second = (data[f"weight_{layer}"].values[-1] for layer in (1, 2))
    wine = load("wine")
    parts = split(wine, 0.2, generator(0, "split").permutation(len(wine.labels)), is_centred=True, is_scaled=True)
    inputs = np.tile(parts.test_inputs, (10, 1))
    hidden, outputs = [], []
    for fraction in fractions:
        mask = MissingEntries(fraction).observed(inputs, seed=1)
        shown = np.concatenate((np.where(mask, inputs, 0.0), mask.mean(1, keepdims=True)), 1)
        hidden.append(np.tanh(shown @ first.T))
        logits = np.concatenate((hidden[-1], np.ones((len(inputs), 1))), 1) @ second.T
        odds = np.exp(logits - logits.max(1, keepdims=True))
        outputs.append(odds / odds.sum(1, keepdims=True))
    return hidden, outputs, np.tile(parts.test_labels, 10)


def unknown() -> None:
    """Draw the hidden layer of a trained network as ever more of its input is missing, and print how it contracts."""
    fractions = (0.0, 0.5, 0.9, 1.0)
    hidden, outputs, labels = hidden_states(fractions)
    centre = hidden[0].mean(0)
    axes_of_most = np.linalg.svd(hidden[0] - centre, full_matrices=False)[2][:2]
    origin = -centre @ axes_of_most.T
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    for axes, fraction, states, odds in zip(panels, fractions, hidden, outputs, strict=True):
        flat = (states - centre) @ axes_of_most.T
        for kind, colour in enumerate((BLUE, ORANGE, GREEN)):
            axes.scatter(*flat[labels == kind].T, s=7, color=colour, alpha=0.5, lw=0, label=f"wine {kind + 1}")
        axes.scatter(*origin, marker="+", s=70, color=RED, lw=1.5, label="unknown, 0")
        axes.set(title=f"{100 * fraction:.0f} % missing", xlabel="first direction")
        tidy(axes)
        away = np.linalg.norm(states, axis=1)
        entropy = -(odds * np.log(odds)).sum(1).mean() / np.log(3)
        print(
            f"{fraction:.0%} missing: |h| {away.mean():.2f}, largest {away.max():.3g}; entropy of output {entropy:.2f}"
        )
    panels[0].set(ylabel="second direction")
    legend = figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, markerscale=2.0
    )
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)
    figure.savefig(FOLDER / "unknown.png", dpi=110)


SILENT = {
    "temperature at JFK, silent for 48 h": ([1], slice(100, 148)),
    "dew point at JFK, silent for 48 h": ([4], slice(100, 148)),
    "three thermometers out for 24 h": ([0, 1, 2], slice(200, 224)),
}
"""What is silent -> which sensors, and the hours."""


def readings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the sensors said or would have said over 400 hours, what neumiss says, and the training means."""
    values = load_series("weather").values
    centre, spread = np.nanmean(values[:4000], 0), np.nanstd(values[:4000], 0)
    data = run("masked/weather")
    guess = data["completed"].values[1:, 0] * spread + centre  # frame k shows the hour that ends there
    return values[4000:4400], guess, centre


def misses(truth: np.ndarray, guess: np.ndarray, centre: np.ndarray, title: str) -> dict[str, float]:
    """Return how far off each way to guess a silent sensor is, root mean square [°F]."""
    columns, out = SILENT[title]
    assert not np.isnan(truth[out.start - 1, columns]).any()
    found = {"neumiss": guess[out, columns], "mean": centre[columns], "last reading": truth[out.start - 1, columns]}
    return {name: float(np.sqrt(np.nanmean((each - truth[out, columns]) ** 2))) for name, each in found.items()}


def weather() -> None:
    """Draw what neumiss infers of silent sensors, and print how far off it is, in the units of the sensors."""
    truth, guess, centre = readings()
    for title in SILENT:
        off = misses(truth, guess, centre, title)
        print(f"{title}: " + ", ".join(f"{name} {each:.3g}" for name, each in off.items()) + " °F (root mean square)")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    hours = np.arange(400) + 0.5
    axes.plot(hours, truth[:, 1], color=GREY, lw=1.2, label="what JFK would have said")
    silent = np.zeros(400, bool)
    for begin, end in ((100, 148), (200, 224), (300, 312)):
        silent[begin:end] = True
        axes.axvspan(begin, end, color=GREY, alpha=0.12, lw=0)
    axes.plot(hours, np.where(silent, guess[:, 1], np.nan), color=RED, lw=1.5, label="inferred while it is silent")
    axes.set(xlabel="time [h]", ylabel="temperature at JFK [°F]", xlim=(0, 400))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    tidy(axes)
    figure.savefig(FOLDER / "weather.png", dpi=110)


def inference(seeds: int) -> None:
    """Print test accuracy of inference learning against the share of pixels that is seen while it learns."""
    print(f"{'observed':>10}{'test accuracy':>16}{'least':>8}{'most':>8}")
    for rate in (1.0, 0.75, 0.5, 0.25):
        found = [
            100 * run("masked/inference", f"mask.rate={rate}", f"seed={seed}")["test_accuracy"].values[-1]
            for seed in range(seeds)
        ]
        print(f"{rate:>10g}{statistics.mean(found):>16.1f}{min(found):>8.1f}{max(found):>8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    blackout()
    failing_sensors()
    unknown()
    neumiss()
    weather()
    if options.seeds:
        inference(options.seeds)


if __name__ == "__main__":
    main()
