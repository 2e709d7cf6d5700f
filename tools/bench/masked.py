"""Cost of a masked layer in units of the dense layer on the same batch, in one process and one thread.

The dense layer gets zeros where the masked one has missing inputs. Forward alone runs without recording
derivatives; forward and backward is that of a first layer: derivatives by weight and bias, not by the input.
``soft`` is a given floating mask. Then a step of a network that learns, with and without a mask on its input. Medians
of paired rounds, in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import paired

from nlsim.core.system import Inputs, Signal
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.learning import GatedSignal
from nlsim.systems.masked.module import MaskedLinear
from nlsim.systems.masked.signal import MaskedSignal, RandomMask
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Constant

CASES = ((64, 64, 64), (784, 256, 64), (784, 1024, 256))
ROUNDS = 101


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
                low, high, times = paired(floor, work, rounds=ROUNDS, seconds=0.001)
                print(f"{name:<24}{form:<13}{kind:<10}{what:<18}{1e6 * low:>11.1f}{1e6 * high:>11.1f}{times:>8.2f}")


def dynamics(widths: tuple[int, ...], batch: int, steps: int = 20) -> tuple[float, float, float]:
    """Return what a step of a learning network costs without and with a mask drawn anew every ``steps`` steps."""
    network = LayeredNetwork(widths, (TANH,) * (len(widths) - 1))
    problem = LearningProblem(network, SQUARED_ERROR, (100.0,) * network.depth, 1.0, 10.0)
    weights = network.initial_weights(0, dtype=torch.float32, device="cpu")
    state, system = problem.initial_state(weights, batch), CostateReversal(problem)
    plain = Constant(Inputs(torch.randn(batch, widths[0]), torch.zeros(batch, widths[-1])))
    mask = RandomMask(widths[0], 0.7, 1.0, batch, like=torch.empty(0))

    def work(signal: Signal) -> Callable[[], object]:
        return lambda: EXPONENTIAL_SWEEP.advance(system, signal.piece(0.0), state, 0.0, 0.001, steps)

    low, high, times = paired(work(plain), work(GatedSignal(MaskedSignal(plain, (mask,)))), rounds=31)
    return low / steps, high / steps, times


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
    print("\na step of a network that learns, with a mask drawn anew every 20 steps")
    with torch.no_grad():
        for widths, batch in (((64, 32, 10), 32), ((784, 256, 256, 10), 64), ((784, 1024, 1024, 1024, 10), 256)):
            low, high, times = dynamics(widths, batch)
            name = f"{'-'.join(map(str, widths))}, batch {batch}"
            print(f"{name:<65}{1e6 * low:>11.1f}{1e6 * high:>11.1f}{times:>8.2f}")


if __name__ == "__main__":
    main()
