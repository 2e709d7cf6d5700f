"""Cost of a masked layer in units of the dense layer on the same batch, in one process and one thread.

The dense layer gets zeros where the masked one has missing inputs. Forward alone runs without recording
derivatives; forward and backward is that of a first layer: derivatives by weight and bias, not by the input.
``soft`` is a given floating mask. Medians of paired rounds, in float32, which first of a pair taking turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.module import MaskedLinear

CASES = ((64, 64, 64), (784, 256, 64), (784, 1024, 256))
ROUNDS = 101


def timed(work: Callable[[], object], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - begin) / repeats


def ratio(floor: Callable[[], object], work: Callable[[], object]) -> tuple[float, float, float]:
    """Return the medians of floor, work and their paired ratio."""
    timed(work, 3)
    repeats = max(1, int(0.001 / max(timed(floor, 3), 1e-7)))
    pairs = []
    for turn in range(ROUNDS):
        if turn % 2:
            b, a = timed(work, repeats), timed(floor, repeats)
        else:
            a, b = timed(floor, repeats), timed(work, repeats)
        pairs.append((a, b))
    low, high = (statistics.median(each) for each in zip(*pairs, strict=True))
    return low, high, statistics.median(b / a for a, b in pairs)


def forward(layer: torch.nn.Module, *inputs: torch.Tensor) -> Callable[[], object]:
    def work() -> object:
        with torch.no_grad():
            return layer(*inputs)

    return work


def both(layer: torch.nn.Module, cotangent: torch.Tensor, *inputs: torch.Tensor) -> Callable[[], object]:
    weights = list(layer.parameters())
    return lambda: torch.autograd.grad(layer(*inputs), weights, cotangent)


def inputs_of(values: torch.Tensor) -> dict[str, tuple[torch.Tensor, ...]]:
    seen = torch.rand(values.shape) < 0.7
    holed = values.masked_fill(~seen, float("nan"))
    return {
        "complete": (values,),
        "mask": (holed, seen),
        "NaN": (holed,),
        "soft": (holed, seen * torch.rand(values.shape)),
    }


def report(name: str, dense: torch.nn.Module, values: torch.Tensor, layers: dict[str, torch.nn.Module]) -> None:
    for form, layer in layers.items():
        for kind, inputs in inputs_of(values).items():
            filled = inputs[0].nan_to_num(0.0)
            with torch.no_grad():
                cotangent = torch.randn_like(dense(values))
            for what, floor, work in (
                ("forward", forward(dense, filled), forward(layer, *inputs)),
                ("forward+backward", both(dense, cotangent, filled), both(layer, cotangent, *inputs)),
            ):
                low, high, times = ratio(floor, work)
                print(f"{name:<24}{form:<13}{kind:<10}{what:<18}{1e6 * low:>11.1f}{1e6 * high:>11.1f}{times:>8.2f}")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads = f"{'layer':<24}{'form':<13}{'input':<10}{'':<18}{'dense [µs]':>11}{'ours [µs]':>11}{'ratio':>8}"
    print(f"{heads}   (medians of {ROUNDS} pairs)")
    for inputs, outputs, batch in CASES:
        plain, compensated = MaskedLinear(inputs, outputs), MaskedLinear(inputs, outputs, is_compensated=True)
        name = f"{inputs}-{outputs}, batch {batch}"
        forms: dict[str, torch.nn.Module] = {"PROMISSING": plain, "mPROMISSING": compensated}
        report(name, torch.nn.Linear(inputs, outputs), torch.randn(batch, inputs), forms)
    for policy in ("observed", "missing"):
        kernel = MaskedConv2d(16, 32, 3, padding=1, padding_counts_as=policy)
        dense = torch.nn.Conv2d(16, 32, 3, padding=1)
        report("16-32, 3x3, 32x32, 16", dense, torch.randn(16, 16, 32, 32), {policy: kernel})


if __name__ == "__main__":
    main()
