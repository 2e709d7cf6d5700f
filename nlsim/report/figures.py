"""Figures of a run: arrays from a data set in, a matplotlib figure out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nlsim.analysis.frames import recorded
from nlsim.errors import RunFileError
from nlsim.report.inference import draw_free_energy, draw_prediction_errors
from nlsim.report.phase import draw_state_and_costate
from nlsim.report.style import BLUE, GREEN, GREY, ORANGE, RED
from nlsim.report.tracking import draw_tracking


def draw_run(data: xarray.Dataset) -> Figure:
    """Draw what a run shows, one panel for each thing that was recorded.

    Panels: loss and accuracy; gradient error; a neuron with its costate (over the most finely recorded stretch);
    free energy; prediction errors; distance from a target; phase portrait; Hamiltonian; the neurons of a population
    that sees masked inputs, its energy, and what it sees.

    Raises
    ------
    RunFileError
        When the run holds none of these channels.
    """
    panels = [(draw, needed) for draw, needed in _PANELS if all(name in data for name in needed)]
    if not panels or data.sizes["time"] == 0:
        raise RunFileError(
            "The run holds nothing that can be drawn.",
            given=", ".join(map(str, data.data_vars)) or "no channels",
            allowed=", ".join(sorted({name for _, needed in _PANELS for name in needed})),
            advice="Record the channels of a panel; loss is the simplest.",
        )
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (draw, needed) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, min(2, len(panels)), number)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, _frames_with(data, needed))
    figure.suptitle(f"{data.attrs.get('title', '')}\nending: {data.attrs.get('ending', 'unknown')}", fontsize=12)
    return figure


def _frames_with(data: xarray.Dataset, needed: tuple[str, ...]) -> xarray.Dataset:
    """Return the frames at which all of these channels were recorded."""
    for name in needed:
        data = data.sel(time=recorded(data[name])["time"])
    return data


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file; the suffix decides the format.

    Raises
    ------
    RunFileError
        When the file cannot be written or its format is not known.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as failure:
        raise RunFileError("The figure cannot be written.", where=str(path), given=str(failure)) from None


def draw_learning(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the loss on a logarithmic axis, and test accuracy on the right when recorded."""
    data = data.isel(time=coarse_frames(data["time"].values))
    times, loss = data["time"].values, data["loss"].values
    seen = loss > 0
    axes.semilogy(times[seen], loss[seen], color=BLUE, lw=0.8, label="loss, current samples")
    axes.set(xlabel="time", ylabel="loss (sum over samples)", title="Learning")
    handles, labels = axes.get_legend_handles_labels()
    if "test_loss" in data:
        test_loss = recorded(data["test_loss"])
        handles += axes.semilogy(
            test_loss["time"].values, test_loss.values, color=GREY, lw=1.2, label="loss, test samples"
        )
        labels.append("loss, test samples")
    if "test_accuracy" in data:
        right = axes.twinx()
        accuracy = 100 * recorded(data["test_accuracy"])
        handles += right.plot(accuracy["time"].values, accuracy.values, color=RED, lw=1.5, label="test accuracy")
        labels.append("test accuracy")
        right.set_ylabel("test accuracy [%]")
        right.set_ylim(0, 100)
        right.annotate(
            f"{accuracy.values[-1]:.1f} %",
            (accuracy["time"].values[-1], accuracy.values[-1]),
            (-6, -14),
            textcoords="offset points",
            ha="right",
            color=RED,
        )
    axes.legend(handles, labels, fontsize=8, frameon=False, loc="center right")


def draw_gradient_error(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the relative distance of the costate gradient from backpropagation."""
    data = data.isel(time=coarse_frames(data["time"].values))
    times, error = data["time"].values, data["gradient_error"].values
    seen = np.isfinite(error) & (error > 0)
    axes.semilogy(times[seen], error[seen], color=GREEN, lw=0.8)
    if seen.any():
        middle = float(np.median(error[seen]))
        axes.axhline(middle, color=GREY, lw=0.8, ls="--")
        axes.annotate(f"median {middle:.2g}", (times[0], middle), (4, 4), textcoords="offset points", color=GREY)
    axes.set(
        xlabel="time",
        ylabel="‖g − g_BP‖ / ‖g_BP‖",
        title="Costate gradient against backpropagation",
    )


def draw_hamiltonian(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the normalised Hamiltonian."""
    data = data.isel(time=coarse_frames(data["time"].values))
    values = data["hamiltonian"].values
    axes.plot(data["time"].values, values, color=ORANGE, lw=0.8)
    scale = "log" if (values > 0).all() else "linear"
    axes.set(xlabel="time", ylabel="H/φ (sum over samples)", title="Hamiltonian", yscale=scale)


def draw_neuron(axes: Axes, data: xarray.Dataset) -> None:
    """Draw one neuron and its costate over the most finely recorded stretch."""
    window = finest_stretch(data["time"].values)
    times = data["time"].values[window]
    activity, costate = (_first_neuron(data[name])[window] for name in ("activity_1", "costate_1"))
    axes.plot(times, activity, color=BLUE, marker=".", ms=3, lw=1, label="activity x")
    axes.set(xlabel="time", ylabel="activity x", title="A neuron of layer 1 and its costate")
    right = axes.twinx()
    right.plot(times, costate, color=RED, marker=".", ms=3, lw=1, label="costate π")
    right.set_ylabel("costate π", color=RED)
    axes.yaxis.label.set_color(BLUE)
    handles = [*axes.get_lines(), *right.get_lines()]
    axes.legend(handles, [str(line.get_label()) for line in handles], fontsize=8, frameon=False)


def draw_population(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the first neurons of the first sample, and shade the times at which it sees nothing."""
    name = "activity" if "activity" in data else "potential"
    states = data[name].isel({data[name].dims[1]: 0}).values[:, :LINES]
    axes.plot(data["time"].values, states, lw=1, color=BLUE, alpha=0.7)
    axes.set(xlabel="time", ylabel=name, title=f"First {states.shape[1]} neurons of the first sample")
    _shade_blackouts(axes, data)


def draw_energy(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the energy of the first samples, and shade the times at which the first one sees nothing."""
    energies = data["energy"].values[:, :LINES]
    axes.plot(data["time"].values, energies, lw=1, color=GREEN, alpha=0.7)
    axes.set(xlabel="time", ylabel="energy E", title=f"Energy of the first {energies.shape[1]} samples")
    _shade_blackouts(axes, data)


def draw_observed(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the observed fraction of the inputs: its mean over samples, and its range."""
    data = data.isel(time=coarse_frames(data["time"].values))
    times, fraction = data["time"].values, data["observed_fraction"].values
    axes.plot(times, fraction.mean(1), color=ORANGE, lw=1.2)
    axes.fill_between(times, fraction.min(1), fraction.max(1), color=ORANGE, alpha=0.2, linewidth=0)
    axes.set(xlabel="time", ylabel="observed fraction μ", title="What is seen of the inputs", ylim=(-0.03, 1.03))


LINES = 8
"""So many lines of one kind are drawn into a panel; more would hide each other."""


def _shade_blackouts(axes: Axes, data: xarray.Dataset) -> None:
    times, dark = data["time"].values, data["observed_fraction"].values[:, 0] == 0
    low, high = axes.get_ylim()
    axes.fill_between(times, low, high, where=dark, color=GREY, alpha=0.15, linewidth=0)
    axes.set_ylim(low, high)


def finest_stretch(times: np.ndarray[Any, Any]) -> slice:
    """Return the longest stretch recorded at (about) the smallest distance, at most 200 frames."""
    if len(times) < 3:
        return slice(0, len(times))
    gaps = np.diff(times)
    fine = gaps <= 1.5 * gaps.min()
    best, start = (0, 0), 0
    for position, is_fine in enumerate([*fine, False]):
        if not is_fine:
            best = max(best, (position - start, -start))
            start = position + 1
    length, first = best[0], -best[1]
    return slice(first, first + min(length, 199) + 1)


def coarse_frames(times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the frames without the inside of a stretch recorded much more finely than the rest."""
    kept = np.arange(len(times))
    fine = finest_stretch(times)
    if len(times) < 3 or np.median(np.diff(times)) < 3 * np.diff(times).min():
        return kept
    return np.concatenate([kept[: fine.start + 1], kept[fine.stop - 1 :]])


def _first_neuron(variable: xarray.DataArray) -> np.ndarray[Any, Any]:
    """Return the first entry of every axis but time."""
    first: np.ndarray[Any, Any] = variable.isel({dim: 0 for dim in variable.dims if dim != "time"}).values
    return first


_PANELS = (
    (draw_learning, ("loss",)),
    (draw_gradient_error, ("gradient_error",)),
    (draw_neuron, ("activity_1", "costate_1")),
    (draw_free_energy, ("free_energy",)),
    (draw_prediction_errors, ("error_1",)),
    (draw_tracking, ("tracking_error",)),
    (draw_state_and_costate, ("activity", "costate")),
    (draw_hamiltonian, ("hamiltonian",)),
    (draw_population, ("activity", "observed_fraction")),
    (draw_population, ("potential", "observed_fraction")),
    (draw_energy, ("energy", "observed_fraction")),
    (draw_observed, ("observed_fraction",)),
)
