"""What speed costs: sweeps and SDIRK2 take the same step at every c, explicit methods take more of them.

First table: CPU time of one step of a layered learning network (sweeps) and of a recurrent network (SDIRK2) at c from 1
to 10⁶, in units of that at c = 1: medians of paired rounds. Second table: vector fields that adaptive explicit
Runge–Kutta needs for one unit of time at the same c and its growth from one c to the next, RK4's at its stability
limit, and SDIRK2's at the first step (halved from 0.1) whose error is at most 1e-4.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.explicit import RK4
from nlsim.integrate.implicit import SDIRK2
from nlsim.integrate.members import Memberwise
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.recurrent import RecurrentNetwork
from nlsim.systems.signals import Sinusoid, hold

SPEEDS = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6)
WIDTHS, BATCH, STEPS, ROUNDS = (64, 64, 64, 10), 64, 20, 31
NEURONS, SAMPLES = 32, 8


def cost(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def sweep(stepper: Any, c: float) -> Callable[[], object]:
    network = LayeredNetwork(WIDTHS, (TANH,) * (len(WIDTHS) - 1))
    problem = LearningProblem(network, SQUARED_ERROR, (c,) * network.depth, 1.0, 10.0)
    state = problem.initial_state(network.initial_weights(0, dtype=torch.float32, device="cpu"), BATCH)
    generator = torch.Generator().manual_seed(1)
    inputs = Inputs(torch.randn(BATCH, WIDTHS[0], generator=generator), torch.zeros(BATCH, WIDTHS[-1]))
    return lambda: stepper.advance(CostateReversal(problem), hold(inputs), state, 0.0, 0.001, STEPS)


def recurrent(c: float) -> tuple[RecurrentNetwork, Sinusoid, Tensor]:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    one = torch.ones((), dtype=torch.float64)
    phase = 3 * draw(SAMPLES, 4)
    signal = Sinusoid(Inputs(0 * one, 0 * one), Inputs(one, one), Inputs(one, one), Inputs(phase, phase))
    net = RecurrentNetwork(0.9 * draw(NEURONS, NEURONS) / NEURONS**0.5, draw(NEURONS, 4), TANH, c)
    return net, signal, torch.zeros(SAMPLES, NEURONS, dtype=torch.float64)


def implicit(c: float) -> Callable[[], object]:
    net, signal, start = recurrent(c)
    return lambda: SDIRK2.advance(net, signal.at, start, 0.0, 0.05, STEPS)


class Counted:
    """Counts vector fields."""

    def __init__(self, system: RecurrentNetwork) -> None:
        self.system, self.count = system, 0

    def vector_field(self, t: Any, state: Tensor, inputs: Inputs) -> Tensor:
        self.count += 1
        return self.system.vector_field(t, state, inputs)

    def linear_solver(self, *arguments: Any) -> Any:
        return self.system.linear_solver(*arguments)


def cost_of_a_step() -> None:
    rows: dict[str, dict[float, Callable[[], object]]] = {
        stepper.name: {c: sweep(stepper, c) for c in SPEEDS} for stepper in (IMPLICIT_SWEEP, EXPONENTIAL_SWEEP)
    }
    rows["sdirk2"] = {c: implicit(c) for c in SPEEDS}
    print(f"cost of a step relative to c = 1 (medians of {ROUNDS} paired rounds)")
    print(f"{'stepper':<20}" + "".join(f"{f'c = {c:.0e}':>12}" for c in SPEEDS))
    for name, works in rows.items():
        for work in works.values():
            work()
        rounds = [{c: cost(work) for c, work in works.items()} for _ in range(ROUNDS)]
        ratios = [statistics.median(each[c] / each[SPEEDS[0]] for each in rounds) for c in SPEEDS]
        print(f"{name:<20}" + "".join(f"{ratio:>12.3f}" for ratio in ratios), flush=True)


def right_hand_sides() -> None:
    speeds = SPEEDS[:5]
    print("\nvector fields for one unit of time, after the transient")
    print(f"{'c':>8}{'dopri5':>10}{'growth':>8}{'memberwise':>12}{'growth':>8}{'rk4':>9}{'sdirk2':>8}{'its error':>11}")
    before: tuple[int, int] | None = None
    for c in speeds:
        net, signal, rest = recurrent(c)
        start = Memberwise(rtol=1e-6, atol=1e-6).reach(net, signal.at, rest, 0.0, 20.0 / c, 10**7).state
        t = 20.0 / c
        counts = []
        for control in (AdaptiveRungeKutta(rtol=1e-5, atol=1e-5), Memberwise(rtol=1e-5, atol=1e-5)):
            counted = Counted(net)
            control.reach(counted, signal.at, start, t, t + 1.0, 10**7)
            counts.append(counted.count)
        exact = RK4.advance(net, signal.at, start, t, 1.0 / (n := max(400, int(c))), n)
        rk4, error = max(20, int(c / RK4.stability_limit) + 1), float("inf")
        steps = 5
        while error > 1e-4:
            steps *= 2
            counted = Counted(net)
            found = SDIRK2.advance(counted, signal.at, start, t, 1.0 / steps, steps)
            error = float((found - exact).abs().max())
        growth = ["", ""] if before is None else [f"{a / b:.1f}" for a, b in zip(counts, before, strict=True)]
        line = f"{c:>8.0e}{counts[0]:>10}{growth[0]:>8}{counts[1]:>12}{growth[1]:>8}{4 * rk4:>9}"
        print(f"{line}{counted.count:>8}{error:>11.1e}", flush=True)
        before = (counts[0], counts[1])


def main() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        cost_of_a_step()
        right_hand_sides()


if __name__ == "__main__":
    main()
