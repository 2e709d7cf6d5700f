"""Cost of one training step of inference learning, in units of its bare matrix products, in one process.

A training step is the feedforward pass, 20 explicit Euler steps of the activities and the update of the weights. The
floor is the matrix products alone with reused buffers: the feedforward pass; per Euler step the predictions of every
layer but the first (constant while the input is held) and the feedback into every hidden layer; and the products of
the update. Medians of paired rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from timing import paired

from nlsim.core.system import Inputs
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision, StepPrecision
from nlsim.systems.inference.update import Adam, LeastMeanSquares, NormalisedLeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold

CASES = (((784, 256, 256, 10), 1), ((784, 256, 256, 10), 64), ((784, 1024, 1024, 1024, 10), 256))
STEPS, ROUNDS = 20, 15


def rules(network: LayeredNetwork) -> dict[str, InferenceLearning]:
    one = ConstantPrecision()
    return {
        "IL-SGD": InferenceLearning(network, SQUARED_ERROR, one, "clamped", LeastMeanSquares(0.01)),
        "IL-Adam": InferenceLearning(network, SQUARED_ERROR, one, "clamped", Adam(1e-3)),
        "IL-prox exact": InferenceLearning(
            network, SQUARED_ERROR, StepPrecision(1.0), "settled", NormalisedLeastMeanSquares(), is_scaled=True
        ),
    }


def floor_of(widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    pairs = list(itertools.pairwise(widths))
    sources = [torch.randn(batch, n) for n, _ in pairs]
    errors = [torch.randn(batch, n) for _, n in pairs]
    weights = [torch.randn(n, m) for m, n in pairs]
    forward = [torch.empty(batch, n) for _, n in pairs]
    back = [torch.empty(batch, m) for m, _ in pairs]
    gradients = [torch.empty(n, m) for m, n in pairs]

    def work() -> None:
        for layer in range(len(pairs)):
            torch.mm(sources[layer], weights[layer].T, out=forward[layer])
        for _ in range(STEPS):
            for layer in range(1, len(pairs)):
                torch.mm(sources[layer], weights[layer].T, out=forward[layer])
                torch.mm(errors[layer], weights[layer], out=back[layer])
        for layer in range(1, len(pairs)):  # what the update sees is predicted once more; the first layer's is known
            torch.mm(sources[layer], weights[layer].T, out=forward[layer])
        for layer in range(len(pairs)):
            torch.mm(errors[layer].T, sources[layer], out=gradients[layer])

    return work


def training_step(system: InferenceLearning, widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    weights = system.network.initial_weights(0, dtype=torch.float32, device="cpu")
    inputs = Inputs(torch.randn(batch, widths[0]), torch.zeros(batch, widths[-1]))
    piece, control = hold(inputs), FixedStep(EXPLICIT_EULER, 0.05)
    state = system.initial_state(weights, inputs)

    def work() -> None:
        nonlocal state  # as in a run, each step goes on from where the last one ended
        flow, moving = system.moving(state, piece)
        reached = control.reach(flow, piece, moving, 0.0, 0.05 * STEPS, STEPS)
        state = system.jump(1.0, system.whole(state, reached.state), inputs, inputs)

    return work


def main() -> None:
    head = f"{'net':<26}{'batch':>6}{'threads':>8}  {'rule':<15}{'floor [ms]':>12}{'step [ms]':>12}{'ratio':>8}"
    print(f"{head}   (medians of {ROUNDS} pairs)")
    with torch.no_grad():
        for (widths, batch), threads in itertools.product(CASES, (1, 2)):
            torch.set_num_threads(threads)
            network = LayeredNetwork(widths, (TANH,) * (len(widths) - 2) + (IDENTITY,))
            floor = floor_of(widths, batch)
            for name, system in rules(network).items():
                step = training_step(system, widths, batch)
                low, high, ratio = paired(floor, step, rounds=ROUNDS, seconds=0.05)
                what = f"{'-'.join(map(str, widths)):<26}{batch:>6}{threads:>8}  {name:<15}"
                print(f"{what}{1e3 * low:>12.3f}{1e3 * high:>12.3f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
