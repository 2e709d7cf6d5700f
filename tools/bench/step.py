"""Cost of one sweep step, in units of its bare matrix products, in one process and one thread.

The floor is the products alone with reused buffers: for each layer the forward product, the weight gradient
and (but for the first layer) the pull-back. Medians of paired rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from timing import paired

from nlsim.core.system import Inputs
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold

CASES = (
    ((64, 32, 10), 32),
    ((784, 256, 256, 10), 1),
    ((784, 256, 256, 10), 64),
    ((784, 1024, 1024, 1024, 10), 256),
)
ROUNDS = 15


def floor_of(widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    pairs = list(itertools.pairwise(widths))
    sources = [torch.randn(batch, n) for n, _ in pairs]
    cotangents = [torch.randn(batch, n) for _, n in pairs]
    weights = [torch.randn(n, m) for m, n in pairs]
    forward = [torch.empty(batch, n) for _, n in pairs]
    back = [torch.empty(batch, m) for m, _ in pairs]
    gradients = [torch.empty(n, m) for m, n in pairs]

    def work() -> None:
        for layer in range(len(pairs)):
            torch.mm(sources[layer], weights[layer].T, out=forward[layer])
            torch.mm(cotangents[layer].T, sources[layer], out=gradients[layer])
            if layer:
                torch.mm(cotangents[layer], weights[layer], out=back[layer])

    return work


def step_of(widths: tuple[int, ...], batch: int, steps: int) -> Callable[[], object]:
    network = LayeredNetwork(widths, (TANH,) * (len(widths) - 1))
    problem = LearningProblem(network, SQUARED_ERROR, (100.0,) * network.depth, 1.0, 10.0)
    weights = network.initial_weights(0, dtype=torch.float32, device="cpu")
    state = problem.initial_state(weights, batch)
    piece = hold(Inputs(torch.randn(batch, widths[0]), torch.zeros(batch, widths[-1])))
    system = CostateReversal(problem)
    return lambda: EXPONENTIAL_SWEEP.advance(system, piece, state, 0.0, 0.001, steps)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'net':<30}{'batch':>6}{'floor [µs]':>12}{'step [µs]':>12}{'ratio':>8}   (medians of {ROUNDS} pairs)")
    with torch.no_grad():
        for widths, batch in CASES:
            steps = 20
            floor, step = floor_of(widths, batch), step_of(widths, batch, steps)
            low, high, ratio = paired(floor, step, rounds=ROUNDS, units=steps)
            print(f"{'-'.join(map(str, widths)):<30}{batch:>6}{1e6 * low:>12.1f}{1e6 * high:>12.1f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
