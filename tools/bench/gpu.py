"""Absolute times on a CUDA device: the demo's steps a second, and one step of larger nets.

Prints one line a case; says so and stops where there is no such device.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from nlsim.core.system import Inputs
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold

CASES = (((64, 32, 10), 32), ((784, 256, 256, 10), 64), ((784, 1024, 1024, 1024, 10), 256), ((4096,) * 5, 1024))
STEPS, ROUNDS = 50, 7


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for widths, batch in CASES:
        network = LayeredNetwork(widths, (TANH,) * (len(widths) - 1))
        problem = LearningProblem(network, SQUARED_ERROR, (100.0,) * network.depth, 1.0, 10.0)
        weights = network.initial_weights(0, dtype=torch.float32, device="cuda")
        state = problem.initial_state(weights, batch)
        inputs = Inputs(torch.randn(batch, widths[0], device="cuda"), torch.zeros(batch, widths[-1], device="cuda"))
        system, times = CostateReversal(problem), []
        with torch.no_grad():
            for _ in range(ROUNDS + 1):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                EXPONENTIAL_SWEEP.advance(system, hold(inputs), state, 0.0, 0.001, STEPS)
                torch.cuda.synchronize()
                times.append((time.perf_counter() - begin) / STEPS)
        print(f"{'-'.join(map(str, widths)):<32}batch {batch:>5}  {1e6 * statistics.median(times[1:]):>9.1f} µs a step")


if __name__ == "__main__":
    main()
