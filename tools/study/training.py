"""Follow the test accuracy of a scenario epoch by epoch, with the clock running only while its network learns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nlsim.integrate.loop import Loop
from nlsim.scenario.load import load_scenario
from nlsim.simulation.build import build


def follow(name: str, overrides: Sequence[str], epochs: int, *, stops: int = 1) -> tuple[list[float], list[float], str]:
    """Return seconds of learning, test accuracies at the start and ``stops`` times an epoch, and the run's ending.

    A run that ends before its time has as many entries as it came to.
    """
    simulation = build(load_scenario(name, overrides=list(overrides)))
    accuracy = next(each for each in simulation.plan.channels if each.spec.name == "test_accuracy").observable
    signal = simulation.signal
    batches = len(signal.inputs) / signal.batch / stops
    state, seconds, times = simulation.state, 0.0, [0.0]
    seen = [float(accuracy.evaluate(0.0, state, signal.piece(0.0)(0.0)))]
    ending = "reached_end"
    for part in range(epochs * stops):
        start, stop = (round(batches * k) * signal.interval for k in (part, part + 1))
        begin = time.perf_counter()
        loop = Loop(simulation.system, simulation.control, signal, state, start=start, until=stop)
        for _ in loop:
            pass
        seconds += time.perf_counter() - begin
        ending = str(loop.ending)
        if ending != "reached_end":
            break
        state = loop.state
        times.append(seconds)
        seen.append(float(accuracy.evaluate(stop, state, signal.piece(start)(start))))
    return times, seen, ending
