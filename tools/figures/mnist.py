"""Test accuracy against wall time on a part of MNIST: backpropagation, IL-prox and IL-Adam.

    python tools/figures/mnist.py [--seeds 3] [--epochs 20]

Runs the scenarios ``inference/mnist*`` epoch by epoch; the clock runs while a network learns, not while it is tested.
Prints a table and draws ``docs/_static/inference/mnist.png``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "study"))
from training import follow

RULES = {
    "backpropagation, Adam": ("inference/mnist_backprop", (), "#0072B2"),
    "backpropagation, SGD 0.1": ("inference/mnist_backprop", ('system.descent={name="sgd", rate=0.1}',), "#56B4E9"),
    "IL-Adam": ("inference/mnist_adam", (), "#D55E00"),
    "IL-prox, exact gains": ("inference/mnist", (), "#009E73"),
}
FIGURE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "inference" / "mnist.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    print(f"{'rule':<26}{'1 epoch':>10}{'5 epochs':>10}{f'{options.epochs} epochs':>11}{'best':>8}{'s/epoch':>9}")
    with torch.no_grad():
        for label, (name, overrides, colour) in RULES.items():
            runs = [follow(name, (*overrides, f"seed={seed}"), options.epochs) for seed in range(options.seeds)]
            times = [statistics.median(each) for each in zip(*(run[0] for run in runs), strict=True)]
            mean = [100 * statistics.mean(each) for each in zip(*(run[1] for run in runs), strict=True)]
            low, high = ([100 * f(each) for each in zip(*(run[1] for run in runs), strict=True)] for f in (min, max))
            axes.plot(times[1:], mean[1:], color=colour, label=label, marker="o", markersize=3)
            axes.fill_between(times[1:], low[1:], high[1:], color=colour, alpha=0.15, linewidth=0)
            cells = f"{mean[1]:>10.1f}{mean[min(5, options.epochs)]:>10.1f}{mean[-1]:>11.1f}{max(mean):>8.1f}"
            print(f"{label:<26}{cells}{times[-1] / options.epochs:>9.2f}", flush=True)
    axes.set_xscale("log")
    axes.set_xlabel("time spent learning [s]")
    axes.set_ylabel("test accuracy [%]")
    axes.set_ylim(bottom=60)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title("784-256-256-10 on 4000 images, batch 64")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    print(FIGURE.relative_to(FIGURE.parents[3]))


if __name__ == "__main__":
    main()
