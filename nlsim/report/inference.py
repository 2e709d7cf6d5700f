"""Figures of inference learning: the free energy, and the prediction errors layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray

from nlsim.analysis.frames import recorded
from nlsim.report.style import line_style, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_free_energy(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the free energy, on a logarithmic axis where it is positive, and the loss when recorded."""
    energy = recorded(data["free_energy"])
    axes.plot(energy["time"].values, energy.values, lw=0.9, label="free energy F", **line_style(0))
    if "loss" in data:
        loss = recorded(data["loss"])
        axes.plot(loss["time"].values, loss.values, lw=0.9, label="loss L", **line_style(1))
    if all((line.get_ydata() > 0).all() for line in axes.get_lines()):  # type: ignore[operator, union-attr]
        axes.set_yscale("log")
    plain(axes, title="Free energy", xlabel="time", ylabel="F (sum over samples)")
    axes.legend(fontsize=8, frameon=False)


def draw_prediction_errors(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the root mean square of the prediction errors of each layer."""
    layers = sorted(
        (name for name in map(str, data.data_vars) if name.removeprefix("error_").isdigit()),
        key=lambda name: int(name.removeprefix("error_")),
    )
    for number, name in enumerate(layers):
        error = recorded(data[name])
        size = (error.astype(np.float64) ** 2).mean([dim for dim in error.dims if dim != "time"]) ** 0.5
        shown = size.where(size > 0)  # a logarithm has no zero
        label = f"layer {name.removeprefix('error_')}"
        axes.plot(shown["time"].values, shown.values, lw=0.9, label=label, **line_style(number))
    axes.set_yscale("log")
    plain(axes, title="Prediction errors", xlabel="time", ylabel="root mean square of e_l")
    axes.legend(fontsize=8, frameon=False)
