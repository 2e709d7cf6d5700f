"""Masked Dormand–Prince against torchdiffeq's dopri5 at equal achieved error, in one process and one thread.

An ensemble of Van der Pol oscillators, ẍ = μ (1 − x²) ẋ − x with μ from 1 to 10, from random states over t in [0, 20].
The error is the worst of any entry at the end, against a solution at tolerance 1e-12. For each accuracy both are given
the loosest tolerance (on a grid of a third of a decade) that reaches it, and are then timed in turn: CPU seconds,
medians of paired rounds, and the median of the paired ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.members import Memberwise

SIZES = (64, 1024, 16384)
GOALS = (1e-3, 1e-5)
ROUNDS = 7
UNTIL, BUDGET = 20.0, 10**7
TOLERANCES = [10 ** (-k / 3) for k in range(12, 34)]


class VanDerPol:
    """ẍ = μ (1 − x²) ẋ − x, one μ each."""

    def __init__(self, members: int) -> None:
        self.stiffness = torch.linspace(1.0, 10.0, members, dtype=torch.float64)

    def vector_field(self, t: object, state: Tensor, inputs: object) -> Tensor:
        x, v = state.unbind(-1)
        return torch.stack((v, self.stiffness * (1 - x * x) * v - x), -1)


def solve(control: Memberwise | AdaptiveRungeKutta, system: VanDerPol, start: Tensor) -> tuple[Tensor, int]:
    outcome = control.reach(system, lambda t: None, start, 0.0, UNTIL, BUDGET)
    assert outcome.ending is None, outcome.detail
    return outcome.state, outcome.steps


def loosest(
    build: Callable[[float], Memberwise | AdaptiveRungeKutta],
    system: VanDerPol,
    start: Tensor,
    exact: Tensor,
    goal: float,
) -> tuple[Memberwise | AdaptiveRungeKutta, float, float, int]:
    """Return the control at the loosest tolerance that reaches the goal, its tolerance, error and steps."""
    for tolerance in TOLERANCES:
        control = build(tolerance)
        found, steps = solve(control, system, start)
        error = float((found - exact).abs().max())
        if error <= goal:
            return control, tolerance, error, steps
    raise SystemExit(f"no tolerance reaches {goal:g}")


def seconds(control: Memberwise | AdaptiveRungeKutta, system: VanDerPol, start: Tensor) -> float:
    begin = time.process_time()
    solve(control, system, start)
    return time.process_time() - begin


def main() -> None:
    torch.set_num_threads(1)
    builders: dict[str, Callable[[float], Memberwise | AdaptiveRungeKutta]] = {
        "memberwise": lambda tol: Memberwise(rtol=tol, atol=tol),
        "torchdiffeq rms": lambda tol: AdaptiveRungeKutta(rtol=tol, atol=tol, norm="rms"),
        "torchdiffeq max": lambda tol: AdaptiveRungeKutta(rtol=tol, atol=tol, norm="max"),
    }
    head = f"{'members':>8} {'goal':>7}  {'method':<16}{'tolerance':>10}{'error':>10}{'steps':>7}{'CPU [s]':>9}"
    print(f"{head}{'ratio':>8}   (medians of {ROUNDS} paired rounds, {torch.get_num_threads()} thread, float64)")
    for members in SIZES:
        system = VanDerPol(members)
        start = 4 * torch.rand(members, 2, generator=torch.Generator().manual_seed(11), dtype=torch.float64) - 2
        exact, _ = solve(Memberwise(rtol=1e-12, atol=1e-12), system, start)
        for goal in GOALS:
            chosen = {name: loosest(build, system, start, exact, goal) for name, build in builders.items()}
            rounds = [{name: seconds(entry[0], system, start) for name, entry in chosen.items()} for _ in range(ROUNDS)]
            for name, (_, tolerance, error, steps) in chosen.items():
                own = statistics.median(each[name] for each in rounds)
                ratio = statistics.median(each[name] / each["memberwise"] for each in rounds)
                line = f"{members:>8} {goal:>7.0e}  {name:<16}{tolerance:>10.1e}{error:>10.1e}{steps:>7}{own:>9.3f}"
                print(f"{line}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
