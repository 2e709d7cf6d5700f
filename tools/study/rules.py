"""Every learning rule on real data: digits and a part of MNIST, one image at a time and in batches of 64.

    python tools/study/rules.py [--seeds 1]

Each rule runs at three rates and is shown at the best of them, by test accuracy at the end; 20 Euler steps of 0.1 for
each batch where there is inference. Prints the final test accuracy in per cent, seconds an epoch on one thread, and
the learning time after which a level of accuracy was reached and kept.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from training import follow

from nlsim.analysis.accuracy import time_to_accuracy

NET = 'network = {layers = [%s], activation = "tanh", output_activation = "identity", weight_scale = 0.57735}'
INFERENCE = 'name = "inference", is_scaled = true, output = "settled", update = {name = "nlms"}'
RULES = {
    "BP-SGD": ('name = "backpropagation", descent = {name = "sgd", rate = %g}', (0.03, 0.1, 0.3)),
    "BP-Adam": ('name = "backpropagation", descent = {name = "adam", rate = %g}', (3e-4, 1e-3, 3e-3)),
    "BP-prox": ('name = "backpropagation_proximal", rate = %g', (0.01, 0.03, 0.1)),
    "IL-SGD": ('name = "inference", update = {name = "lms", rate = %g}', (0.03, 0.1, 0.3)),
    "IL-Adam": ('name = "inference", update = {name = "adam", rate = %g}', (3e-4, 1e-3, 3e-3)),
    "IL-prox, equal gains": (INFERENCE + ', precision = {name = "step", kind = "equal", rate = %g}', (0.03, 0.1, 0.3)),
    "IL-prox, self-consistent": (
        INFERENCE + ', precision = {name = "step", kind = "self_consistent", rate = %g}', (0.03, 0.1, 0.3),
    ),
    "IL-prox, exact": (INFERENCE + ', precision = {name = "step", kind = "exact", rate = %g}', (0.03, 0.1, 0.3)),
    "incremental": ('name = "incremental_inference", rate = %g', (0.01, 0.03, 0.1)),
    "sequential, MQ": ('name = "sequential_inference", update = {name = "mean_size", rate = %g}', (1e-4, 3e-4, 1e-3)),
}  # fmt: skip
SETTINGS = {
    ("digits", 1): ("64, 32, 32, 10", 2, 0.8),
    ("digits", 64): ("64, 32, 32, 10", 20, 0.8),
    ("mnist", 1): ("784, 256, 256, 10", 1, 0.8),
    ("mnist", 64): ("784, 256, 256, 10", 5, 0.8),
}
"""Layers, epochs, and the accuracy whose time is looked for."""


def overrides(dataset: str, batch: int, rule: str, rate: float, seed: int) -> list[str]:
    text, _ = RULES[rule]
    network = NET % SETTINGS[dataset, batch][0]
    has_inference = "inference" in text and "sequential" not in text
    interval, dt = (2.0, 0.1) if has_inference else (1.0, 1.0)
    return [
        f"system = {{{text % rate}, {network}}}",
        f"seed = {seed}",
        f"until = {interval}",
        f"record.every = {interval}",
        'record.channels = ["test_accuracy"]',
        'numerics.dtype = "float32"',
        f'stepper = {{name = "explicit_euler", dt = {dt}}}',
        f'signal = {{name = "samples", dataset = "{dataset}", batch = {batch}, interval = {interval}, '
        "test_fraction = 0.2, centred = true}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        for (dataset, batch), (_, epochs, level) in SETTINGS.items():
            print(f"\n{dataset}, batch {batch}, {epochs} epochs; time to {100 * level:g} %")
            print(f"{'rule':<26}{'rate':>8}{'accuracy [%]':>14}{'s/epoch':>10}{'time [s]':>10}")
            for rule, (_, rates) in RULES.items():
                best = None
                for rate in rates:
                    runs = [
                        follow("inference/mnist", overrides(dataset, batch, rule, rate, seed), epochs, stops=5)
                        for seed in range(options.seeds)
                    ]
                    # a run that diverged has lost everything, whatever it had before
                    scores = [seen[-1] if ending == "reached_end" else 0.1 for _, seen, ending in runs]
                    score = statistics.mean(scores)
                    if best is None or score > best[1]:
                        best = rate, score, runs
                assert best is not None
                rate, score, runs = best
                cost = statistics.median(times[-1] / (len(times) - 1) * 5 for times, *_ in runs if len(times) > 1)
                when = statistics.median(float(time_to_accuracy(seen, level, time=times)) for times, seen, _ in runs)
                print(f"{rule:<26}{rate:>8g}{100 * score:>14.1f}{cost:>10.2f}{when:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
