"""Ways to have missing inputs, side by side: accuracy, confidence and entropy as ever more of the input is missing.

    python tools/study/masked.py [--seeds 5] [--data breast_cancer digits] [--rules promissing zero ...]
    python tools/study/masked.py --xor [--seeds 8]

One hidden layer of 24 tanh units whose first-layer rule is what is compared, an ordinary output layer with a logit a
class, Adam at 5e-3 with weight decay 1e-4, 100 epochs (40 on digits). 60 % of the samples train, with 30 % of their
entries missing completely at random; the rest is tested with 0 to 100 % missing. Inputs are standardised by what
training observed. The reference says neither how large batches are nor whether masks change from epoch to epoch: here
batches of 64 see the same mask in every epoch (see ``--batch`` and ``--fresh``). Prints means over seeds and their
standard errors beside the reference, and draws ``docs/_static/masked/comparison.png``.

``--xor`` is the noisy exclusive or: two inputs uniform in [−1, 1] with Gaussian noise of variance ¼, labelled after
the noise, 2-4-1 with tanh, 200 epochs at 0.05 (at 5e-3 four units often get stuck), one of the two columns incomplete
in training and test; test AUC.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from nlsim.analysis.calibration import accuracy, expected_calibration_error, log_loss
from nlsim.analysis.decisiveness import both_classes, mean_confidence, mean_distance_from_half, normalised_entropy
from nlsim.core.randomness import generator
from nlsim.data.catalogue import load, split
from nlsim.systems.masked.competitor import RULES
from nlsim.systems.masked.mechanism import MECHANISMS, MissingEntries

FIGURE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "masked" / "comparison.png"
EPOCHS = {"breast_cancer": 100, "digits": 40, "wine": 100}
SHOWN = (0.0, 0.5, 0.9, 1.0)
GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
MEASURES = ("accuracy", "confidence", "entropy", "log-loss", "calibration")
# accuracy, mean max-probability, normalised entropy at 0, 50, 90 and 100 % missing, as spec/masked.md 4.5 has them
REFERENCE = {
    ("breast_cancer", "promissing"): (".971/.991/.03", ".943/.979/.08", ".768/.862/.41", ".475/.540/.99"),
    ("breast_cancer", "mpromissing"): (".970/.991/.03", ".932/.981/.07", ".728/.902/.32", ".475/.800/.58"),
    ("breast_cancer", "zero"): (".970/.991/.03", ".943/.979/.08", ".779/.882/.38", ".576/.706/.85"),
    ("breast_cancer", "sparsity"): (".969/.989/.04", ".940/.983/.06", ".765/.947/.17", ".576/.683/.82"),
    ("breast_cancer", "indicator"): (".971/.992/.03", ".939/.977/.08", ".762/.884/.36", ".525/.585/.96"),
    ("digits", "promissing"): (".960/.965/.05", ".805/.872/.16", ".340/.573/.52", ".098/.127/1.00"),
    ("digits", "mpromissing"): (".953/.964/.05", ".800/.872/.16", ".327/.609/.48", ".098/.443/.78"),
    ("digits", "zero"): (".958/.965/.05", ".804/.872/.16", ".312/.626/.47", ".097/.552/.68"),
    ("digits", "sparsity"): (".959/.960/.05", ".796/.882/.14", ".332/.773/.27", ".097/.508/.72"),
    ("digits", "indicator"): (".957/.966/.05", ".793/.860/.17", ".321/.570/.53", ".100/.134/.99"),
}
ROUNDED = (0.0005, 0.0005, 0.005)
"""Half a unit of the last digit that the reference prints."""
XOR_REFERENCE = {
    ("mcar", 0.3): (0.935, 0.929, 0.936, 0.934, 0.912),
    ("mcar", 0.5): (0.845, 0.843, 0.851, 0.845, 0.829),
    ("mar", 0.3): (0.916, 0.923, 0.922, 0.916, 0.934),
    ("mnar", 0.3): (0.987, 0.990, 0.985, 0.975, 0.987),
    ("mnar", 0.5): (0.933, 0.934, 0.925, 0.895, 0.937),
}
XOR_RULES = ("promissing", "mpromissing", "zero", "sparsity", "indicator")
COLOURS = {
    "promissing": "#0072B2", "mpromissing": "#56B4E9", "zero": "#000000", "mean": "#999999", "knn": "#F0E442",
    "iterative": "#E69F00", "indicator": "#009E73", "sparsity": "#D55E00", "neumiss": "#CC79A7",
}  # fmt: skip
Array = NDArray[np.float64]
Inputs = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
"""Features and masks of the training samples in an epoch."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    hidden, outputs : int
        Units of the hidden layer, and logits; one logit for two classes.
    epochs, batch : int
        Passes, and samples a step.
    rate, decay : float
        Of Adam; decay is added to the gradient.
    """

    hidden: int
    outputs: int
    epochs: int
    batch: int = 64
    rate: float = 5e-3
    decay: float = 1e-4


class Network(torch.nn.Module):
    """A first layer after a rule, tanh, and an ordinary output layer with its bias."""

    def __init__(self, rule: str, inputs: int, recipe: Recipe) -> None:
        super().__init__()
        self.first = RULES[rule].layer(inputs, recipe.hidden)
        self.last = torch.nn.Linear(recipe.hidden, recipe.outputs)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(values, mask)))


def tensors(prepared: tuple[Array, NDArray[np.bool_]]) -> tuple[torch.Tensor, torch.Tensor]:
    features, mask = prepared
    return torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(mask, dtype=torch.float32)


def train(rule: str, epoch_inputs: Inputs, labels: torch.Tensor, recipe: Recipe, seed: int) -> Network:
    """Return a network trained on features and masks of each epoch; the seed gives weights and order of samples."""
    torch.manual_seed(seed)
    network = Network(rule, epoch_inputs(0)[0].shape[1], recipe)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay, fused=True)
    for epoch in range(recipe.epochs):
        values, mask = epoch_inputs(epoch)
        order = torch.as_tensor(generator(seed, "order", epoch).permutation(len(labels)))
        for rows in order.split(recipe.batch):
            optimiser.zero_grad()
            logits = network(values[rows], mask[rows])
            if recipe.outputs == 1:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels[rows].float())
            else:
                loss = torch.nn.functional.cross_entropy(logits, labels[rows])
            loss.backward()
            optimiser.step()
    return network


def predict(network: Network, values: torch.Tensor, mask: torch.Tensor) -> Array:
    """Return probabilities of the classes, shape ``(sample, class)``."""
    with torch.no_grad():
        logits = network(values, mask).double()
    return both_classes(torch.sigmoid(logits[:, 0])) if logits.shape[1] == 1 else logits.softmax(-1).numpy()


def measure(p: Array, labels: NDArray[np.int64]) -> tuple[float, ...]:
    """Return all that is measured, in the order of MEASURES."""
    known = accuracy(p, labels), mean_confidence(p), normalised_entropy(p), log_loss(p, labels)
    return (*(float(each) for each in known), expected_calibration_error(p, labels))


def run_table(name: str, rule: str, seed: int, fractions: Sequence[float], options: argparse.Namespace) -> Array:
    """Return what one seed of one rule gives at each fraction, shape ``(fraction, measure)``."""
    data = load(name)
    order = generator(seed, f"split of {name}").permutation(len(data.labels))
    parts = split(data, 0.4, order)
    mask = MissingEntries(0.3).observed(parts.train_inputs, seed, index=0)
    prepare = RULES[rule].prepare(parts.train_inputs, mask)
    held = tensors(prepare(parts.train_inputs, mask))

    def epoch_inputs(epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not options.fresh:
            return held
        return tensors(prepare(parts.train_inputs, MissingEntries(0.3).observed(parts.train_inputs, seed, 2 + epoch)))

    recipe = Recipe(24, len(data.classes), EPOCHS[name], batch=options.batch)
    network = train(rule, epoch_inputs, torch.as_tensor(parts.train_labels), recipe, seed)
    rows = []
    for fraction in fractions:
        shown = MissingEntries(fraction).observed(parts.test_inputs, seed, index=1)
        p = predict(network, *tensors(prepare(parts.test_inputs, shown)))
        rows.append(measure(p, parts.test_labels))
    return np.array(rows)


def spread(values: Array) -> tuple[Array, Array]:
    """Return mean and standard error over the first axis."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def agrees(mean: float, error: float, reference: float, rounded: float) -> bool:
    """Whether a mean is within two standard errors of the difference of two such runs, and of the rounding."""
    return abs(mean - reference) <= 2 * np.sqrt(2) * error + rounded


def report(name: str, found: dict[str, Array]) -> tuple[int, int]:
    """Print the table of a data set; return how many cells agree with the reference, of how many."""
    places = [GRID.index(fraction) for fraction in SHOWN]
    good = total = 0
    print(f"\n{name}: mean ± standard error (reference), × where they differ by more than two standard errors")
    for measure_index, title in enumerate(MEASURES):
        print(f"\n{title:<13}" + "".join(f"{f'{100 * fraction:.0f} % missing':>24}" for fraction in SHOWN))
        for rule, values in found.items():
            mean, error = spread(values)
            cells = []
            for column, place in enumerate(places):
                m, e = mean[place, measure_index], error[place, measure_index]
                text = f"{m:.3f} ± {e:.3f}"
                if (name, rule) in REFERENCE and measure_index < 3:
                    known = float(REFERENCE[name, rule][column].split("/")[measure_index])
                    is_good = agrees(m, e, known, ROUNDED[measure_index])
                    good, total = good + is_good, total + 1
                    text += f" ({known:.3f}){' ' if is_good else '×'}"
                else:
                    text += " " * 9
                cells.append(f"{text:>24}")
            print(f"{rule:<13}" + "".join(cells))
    return good, total


def draw(results: dict[str, dict[str, Array]]) -> None:
    """Draw accuracy, confidence and entropy against the missing fraction, a row a data set."""
    mpl.use("Agg")
    size = (9.6, 3.0 * len(results) + 0.6)
    figure, axes = plt.subplots(len(results), 3, figsize=size, layout="constrained", squeeze=False, sharex=True)
    x = 100 * np.array(GRID)
    for row, (name, found) in zip(axes, results.items(), strict=True):
        for k, label in enumerate(("accuracy", "mean largest probability", "normalised entropy")):
            for rule, values in found.items():
                mean, error = spread(values[..., k])
                is_ours = rule in ("promissing", "mpromissing")
                style = {"linewidth": 2.2, "zorder": 3} if is_ours else {"linewidth": 1.2, "zorder": 2}
                row[k].plot(
                    x, mean, color=COLOURS[rule], label=rule, linestyle="--" if rule == "mean" else "-", **style
                )
                row[k].fill_between(x, mean - error, mean + error, color=COLOURS[rule], alpha=0.12, linewidth=0)
            row[k].set_ylabel(label)
            row[k].set_title(name.replace("_", " "), fontsize=10)
            row[k].grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("missing at test [%]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    print(FIGURE.relative_to(FIGURE.parents[3]))


def run_xor(rule: str, name: str, fraction: float, seed: int, recipe: Recipe) -> tuple[float, float, float]:
    """Return test AUC, and mean |p − ½| on complete and on incomplete test samples."""
    draw_ = generator(seed, "exclusive or")
    inputs = draw_.uniform(-1, 1, (1000, 2)) + draw_.normal(0, 0.5, (1000, 2))
    labels = (inputs[:, 0] * inputs[:, 1] < 0).astype(np.int64)
    column = int(generator(seed, "incomplete column").integers(2))
    mask = MECHANISMS[name](fraction, (column,)).observed(inputs, seed)
    train_part, test_part = slice(0, 500), slice(500, None)
    prepare = RULES[rule].prepare(inputs[train_part], mask[train_part])
    held = tensors(prepare(inputs[train_part], mask[train_part]))
    network = train(rule, lambda epoch: held, torch.as_tensor(labels[train_part]), recipe, seed)
    p = predict(network, *tensors(prepare(inputs[test_part], mask[test_part])))[:, 1]
    whole = mask[test_part].all(1)
    return (
        float(roc_auc_score(labels[test_part], p)),
        float(mean_distance_from_half(p[whole])),
        float(mean_distance_from_half(p[~whole])),
    )


def main_xor(seeds: int, recipe: Recipe) -> None:
    print(f"noisy exclusive or, {seeds} seeds: test AUC ± standard error (reference)")
    print(f"{'':<12}" + "".join(f"{f'{name} {100 * fraction:.0f} %':>24}" for name, fraction in XOR_REFERENCE))
    sure = {}
    for place, rule in enumerate(XOR_RULES):
        cells = []
        for (name, fraction), known in XOR_REFERENCE.items():
            runs = np.array([run_xor(rule, name, fraction, seed, recipe) for seed in range(seeds)])
            mean, error = spread(runs)
            is_good = agrees(mean[0], error[0], known[place], 0.0005)
            cells.append(f"{f'{mean[0]:.3f} ± {error[0]:.3f} ({known[place]:.3f})':>23}{' ' if is_good else '×'}")
            if (name, fraction) == ("mcar", 0.3):
                sure[rule] = mean[1:]
        print(f"{rule:<12}" + "".join(cells), flush=True)
    print("mean |p − ½| at mcar 30 %, complete and incomplete samples:")
    print("; ".join(f"{rule} {one:.2f}, {other:.2f}" for rule, (one, other) in sure.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--data", nargs="+", default=["breast_cancer", "digits"], choices=list(EPOCHS))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--batch", type=int, default=64, help="samples a step")
    parser.add_argument("--fresh", action="store_true", help="draw the training mask anew for each epoch")
    parser.add_argument("--xor", action="store_true", help="the noisy exclusive or instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.process_time()
    if options.xor:
        main_xor(options.seeds or 8, Recipe(4, 1, 200, options.batch, rate=0.05, decay=0.0))
    else:
        results: dict[str, dict[str, Array]] = {}
        counts = np.zeros(2, dtype=int)
        for name in options.data:
            found = {
                rule: np.stack([run_table(name, rule, seed, GRID, options) for seed in range(options.seeds or 5)])
                for rule in options.rules
            }
            results[name] = found
            counts += report(name, found)
        print(f"\n{counts[0]} of {counts[1]} cells within two standard errors of the reference")
        draw(results)
    print(f"{time.process_time() - begin:.0f} s of one processor")


if __name__ == "__main__":
    main()
