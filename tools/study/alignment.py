"""How straight every update rule moves the output to its target, and how far its step is from steepest descent.

    python tools/study/alignment.py [--samples 60] [--seeds 3] [--random] [--trained 0]

One step on one sample from weights as drawn (or trained by SGD on so many images), for many samples side by side.
Printed are means of cos(h' − h, y − h), of the output before and after the step, and of cos(Δθ, −∇L). Digits: 8×8
images of mean 0 and deviation 1, one-hot targets, hidden layers of width 10, no biases. With ``--random`` inputs and
targets are unit normal and all layers of width 10, beside the reference that was measured so. A rule whose
activities find no rest on a sample is left out there; how often is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlsim.analysis.alignment import path_alignment, update_alignment
from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs
from nlsim.data.catalogue import load
from nlsim.systems.activation import ACTIVATIONS, IDENTITY
from nlsim.systems.inference.baselines import (
    BackpropagationProximal,
    BackpropagationSteps,
    GradientDescent,
    mean_gradients,
)
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import StepPrecision
from nlsim.systems.inference.rest import find_rest
from nlsim.systems.inference.update import NormalisedLeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import one_hot

RATES = (0.01, 0.1, 1.0)
DEPTHS = (2, 4, 8)
REFERENCE = {  # of random data, by depth
    ("identity", "SGD"): ((0.91, 0.78, -0.79), (0.77, 0.33, -0.96), (0.76, 0.30, -0.38)),
    ("identity", "IL self-consistent"): ((0.94, 0.99, 1.00), (0.88, 0.97, 1.00), (0.90, 0.97, 1.00)),
    ("tanh", "SGD"): ((0.86, 0.85, 0.30), (0.72, 0.67, 0.11), (0.64, 0.62, 0.54)),
    ("tanh", "IL self-consistent"): ((0.89, 0.96, 1.00), (0.75, 0.87, 0.98), (0.69, 0.83, 0.96)),
}
"""An independent measurement; of inference it does not say which rule for precisions."""


def inference(kind: str) -> Callable[[LayeredNetwork, float], InferenceLearning]:
    return lambda network, rate: InferenceLearning(
        network, SQUARED_ERROR, StepPrecision(rate, kind), "settled", NormalisedLeastMeanSquares(), is_scaled=True
    )


RULES: dict[str, Callable[[LayeredNetwork, float], Any]] = {
    "SGD": lambda network, rate: BackpropagationSteps(network, SQUARED_ERROR, GradientDescent(rate)),
    "BP-prox": lambda network, rate: BackpropagationProximal(network, SQUARED_ERROR, rate),
    "IL exact": inference("exact"),
    "IL self-consistent": inference("self_consistent"),
    "IL feedforward": inference("feedforward"),
    "IL equal gains": inference("equal"),
}


@dataclass(frozen=True)
class Seen:
    """Cosines of the samples of one rule: of the output's path, of the update with −∇L, NaN where there is none."""

    path: np.ndarray
    update: np.ndarray
    lost: int


def step(system: Any, weights: tuple[Tensor, ...], inputs: Inputs) -> Seen:
    """Take one step for each sample, every sample being a member of an ensemble with weights of its own."""
    own = tuple(w.expand(len(inputs.input), *w.shape) for w in weights)
    state = system.initial_state(own, inputs)
    is_settled = torch.ones(len(inputs.input), dtype=torch.bool)
    if isinstance(system, InferenceLearning):
        flow, moving = system.moving(state, Held(inputs))
        rest = find_rest(flow, moving, inputs)
        is_settled = (rest.residual <= rest.tolerance).squeeze(-1)
        state = system.whole(state, rest.activity)
    new = system.jump(0.0, state, inputs, inputs).weight
    gradient = mean_gradients(system.network, SQUARED_ERROR, own, inputs)
    before, after = (feedforward(system.network, each, inputs.input)[-1].squeeze(-2) for each in (own, new))
    path = path_alignment(before.numpy(), after.numpy(), inputs.target.squeeze(-2).numpy())
    moved = [(b - a).numpy() for a, b in zip(own, new, strict=True)]
    update = update_alignment(moved, [g.numpy() for g in gradient], ensemble_axes=1)
    keep = is_settled.numpy()
    return Seen(path[keep], update[keep], int((~keep).sum()))


def draw_samples(seed: int, count: int, *, is_random: bool) -> Inputs:
    """Return samples as members, shapes ``(member, 1, features)``."""
    if is_random:
        drawn = generator(seed, "sample").standard_normal((2, count, 1, 10))
        return Inputs(torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1]))
    data = load("digits")
    inputs = torch.as_tensor(data.inputs, dtype=torch.float64)
    inputs = inputs - inputs.mean(0)
    chosen = torch.from_numpy(generator(seed, "sample").permutation(len(inputs))[:count])
    labels = torch.as_tensor(data.labels)[chosen]
    return Inputs((inputs / inputs.std())[chosen].unsqueeze(-2), one_hot(labels, 10, torch.float64).unsqueeze(-2))


def train(network: LayeredNetwork, weights: tuple[Tensor, ...], count: int, seed: int) -> tuple[Tensor, ...]:
    """Return the weights after SGD at rate 0.01 on so many images, one at a time."""
    shown = draw_samples(seed + 1000, count, is_random=False) if count else None
    for k in range(count):
        assert shown is not None
        sample = Inputs(shown.input[k], shown.target[k])
        slopes = mean_gradients(network, SQUARED_ERROR, weights, sample)
        weights = tuple(w - 0.01 * g for w, g in zip(weights, slopes, strict=True))
    return weights


def measure(name: str, activation: str, depth: int, rate: float, options: argparse.Namespace) -> Seen:
    """Return the cosines of a rule over all seeds."""
    first = 10 if options.random else 64
    functions = (*(ACTIVATIONS[activation],) * (depth - 1), IDENTITY)
    network = LayeredNetwork((first, *(10,) * depth), functions, has_bias=False)
    found = []
    for seed in range(options.seeds):
        weights = network.initial_weights(seed, dtype=torch.float64, device="cpu")
        weights = train(network, weights, options.trained, seed)
        inputs = draw_samples(seed, options.samples, is_random=options.random)
        found.append(step(RULES[name](network, rate), weights, inputs))
    return Seen(
        np.concatenate([each.path for each in found]),
        np.concatenate([each.update for each in found]),
        sum(each.lost for each in found),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", action="store_true", help="unit normal data instead of digits")
    parser.add_argument("--trained", type=int, default=0, help="images shown to SGD before the step that is measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("mean cos(Δh, y − h) | mean cos(Δθ, −∇L), at α = " + ", ".join(f"{rate:g}" for rate in RATES))
    for activation in ("identity", "tanh"):
        for name in RULES:
            for place, depth in enumerate(DEPTHS):
                seen = [measure(name, activation, depth, rate, options) for rate in RATES]
                path = " ".join(f"{np.nanmean(each.path):6.2f}" for each in seen)
                update = " ".join(f"{np.nanmean(each.update):6.2f}" for each in seen)
                known = REFERENCE.get((activation, name)) if options.random else None
                beside = "" if known is None else "   reference " + " ".join(f"{c:6.2f}" for c in known[place])
                lost = sum(each.lost for each in seen)
                tail = f"   {lost} samples without rest" if lost else ""
                print(f"{activation:<9} {name:<19} L = {depth} {path} | {update}{beside}{tail}", flush=True)


if __name__ == "__main__":
    main()
