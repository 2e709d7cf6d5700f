"""The learning-rate study: one pass over the digits, one at a time, at six step sizes, for every rule.

    python tools/study/stability.py [--seeds 2] [--raw]

8×8 digits, 1348 to train and 449 to test, 64-32-32-10 tanh, squared error on one-hot targets; inputs of mean 0
and overall deviation 1, as the training images have them. All step sizes of a rule
run at once, as an ensemble. Prints test accuracies in per cent, and at the end whether the thresholds hold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlsim.core.ending import Ending
from nlsim.core.randomness import generator
from nlsim.core.state import leaves
from nlsim.data.catalogue import load, split
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.inference.baselines import BackpropagationProximal, BackpropagationSteps, GradientDescent
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import StepPrecision
from nlsim.systems.inference.update import NormalisedLeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import HeldSamples, one_hot

NET = LayeredNetwork((64, 32, 32, 10), (TANH, TANH, IDENTITY))
RATES = (0.01, 0.1, 1.0, 2.5, 10.0, 100.0)
SPEC = {
    "BP-SGD": (82.3, 84.3, 10, 10, 10, 10),
    "BP-prox": (73.7, 84.9, 55.2, 29.3, 18.7, 10.4),
    "equal gains, 25 × 0.015 (released)": (63.1, 80.7, 76.4, 75.4, 75.9, 75.8),
    "equal gains, 200 × 0.1": (None, 87.1, 83.8, None, 83.8, 83.8),
    "self-consistent, 25 × 0.015": (None, 85.3, 84.8, None, 84.2, 84.0),
    "self-consistent, 200 × 0.1": (82.4, 85.9, 84.6, 84.6, 83.9, 83.8),
    "exact, 200 × 0.1": (81.7, 90.2, 84.6, 84.1, 83.7, 83.6),
}
"""Accuracies of an independent run of the same set-up; differences below two points are noise."""


def inference(kind: str) -> Callable[[Tensor], InferenceLearning]:
    return lambda rate: InferenceLearning(
        NET, SQUARED_ERROR, StepPrecision(rate, kind), "settled", NormalisedLeastMeanSquares(), is_scaled=True
    )


RULES: dict[str, tuple[Callable[[Tensor], Any], int, float]] = {
    "BP-SGD": (lambda rate: BackpropagationSteps(NET, SQUARED_ERROR, GradientDescent(rate)), 1, 1.0),
    "BP-prox": (lambda rate: BackpropagationProximal(NET, SQUARED_ERROR, rate), 1, 1.0),
    "equal gains, 25 × 0.015 (released)": (inference("equal"), 25, 0.015),
    "equal gains, 200 × 0.1": (inference("equal"), 200, 0.1),
    "self-consistent, 25 × 0.015": (inference("self_consistent"), 25, 0.015),
    "self-consistent, 200 × 0.1": (inference("self_consistent"), 200, 0.1),
    "exact, 200 × 0.1": (inference("exact"), 200, 0.1),
}


def accuracies(
    name: str, seed: int, passes: float = 1.0, rates: tuple[float, ...] = RATES, *, is_standardised: bool = True
) -> list[float]:
    """Return test accuracies in per cent, one for each step size; 10, the share of a class, after a divergence.

    Large steps fit each image in turn, so what overlaps between images is unlearned: with inputs as they are, from 0 to
    1, accuracies at α ≥ 1 are some ten points lower than with inputs of mean 0 and deviation 1.
    """
    build, steps, dt = RULES[name]
    data = load("digits")
    parts = split(data, 0.25, generator(seed, "split").permutation(len(data.labels)), is_centred=is_standardised)
    size = parts.train_inputs.std() if is_standardised else 1.0
    train, test = torch.as_tensor(parts.train_inputs / size), torch.as_tensor(parts.test_inputs / size)
    targets = one_hot(torch.as_tensor(parts.train_labels), 10, torch.float64)
    rate = torch.tensor(rates, dtype=torch.float64)[:, None, None]
    system = build(rate)
    interval = steps * dt
    signal = HeldSamples(train, targets, 1, interval, seed)
    weights = NET.initial_weights(seed, scale=3**-0.5, dtype=torch.float64, device="cpu")
    weights = tuple(w.expand(len(rates), *w.shape).clone() for w in weights)
    state = system.initial_state(weights, signal.piece(0.0)(0.0))
    count = round(passes * len(train))
    with torch.no_grad():
        loop = Loop(system, FixedStep(EXPLICIT_EULER, dt), signal, state, until=count * interval)
        for _ in loop:
            pass
        if loop.ending is not Ending.REACHED_END and len(rates) > 1:
            # a member that blew up has ended the others: one by one then
            return [accuracies(name, seed, passes, (each,), is_standardised=is_standardised)[0] for each in rates]
        finite = all(bool(torch.isfinite(leaf).all()) for leaf in leaves(loop.state))
        if loop.ending is not Ending.REACHED_END or not finite:
            return [10.0]
        answers = NET.forward(loop.state.weight, test)[-1].argmax(-1)
    return [100 * float(row) for row in (answers == torch.as_tensor(parts.test_labels)).double().mean(-1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--raw", action="store_true", help="inputs from 0 to 1 instead of standardised ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    print(f"{'rule':<38}" + "".join(f"{f'α = {rate:g}':>14}" for rate in RATES) + "   [test accuracy, %; reference]")
    for name in RULES:
        begin = time.perf_counter()
        runs = [accuracies(name, seed, is_standardised=not options.raw) for seed in range(options.seeds)]
        found[name] = [sum(each) / len(each) for each in zip(*runs, strict=True)]
        cells = [
            f"{value:7.1f} " + ("(    )" if known is None else f"({known:4.1f})")
            for value, known in zip(found[name], SPEC[name], strict=True)
        ]
        print(
            f"{name:<38}" + "".join(f"{cell:>14}" for cell in cells) + f"   {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    consistent = found["self-consistent, 200 × 0.1"]
    claims = {
        "SGD at α = 100 is at 15 or below": found["BP-SGD"][-1] <= 15,
        "BP-prox at α = 100 is at 30 or below": found["BP-prox"][-1] <= 30,
        "self-consistent at α = 100 is at 78 or above": consistent[-1] >= 78,
        "exact at α = 100 is at 78 or above": found["exact, 200 × 0.1"][-1] >= 78,
        "self-consistent varies by 4 or less from α = 1 to 100": max(consistent[2:]) - min(consistent[2:]) <= 4,
        "released is between 70 and 80 from α = 1 to 100": all(
            70 <= value <= 80 for value in found["equal gains, 25 × 0.015 (released)"][2:]
        ),
    }
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")


if __name__ == "__main__":
    main()
