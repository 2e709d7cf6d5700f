"""The tracking net as a symbolic graph: its Hamilton equations derived, and compared with those that run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.tracking import TrackingProblem, TrackingState
from nlsim.theorems.symbols import Graph, Model, model

Q, Z = sp.symbols("q z", real=True)


def complete_graph(neurons: int) -> Graph:
    """Return the digraph with all arcs, self-loops included, no inputs, and neuron 1 as output."""
    vertices = range(1, neurons + 1)
    return Graph("complete", 0, neurons, tuple((j, i) for i in vertices for j in vertices), (1,))


def tracking_model(neurons: int, activation: Any = sp.tanh) -> Model:
    """Return the symbolic problem: c L = q (x₁ − z)²/2, m c = r, c k/2 = r_w."""
    c = sp.Symbol("c", positive=True)
    return model(
        complete_graph(neurons), activation=activation, loss=lambda outputs, b: Q * (outputs[0] - Z) ** 2 / (2 * c)
    )


@dataclass(frozen=True)
class TrackingPoint:
    """One random point of the net, as numbers for both forms."""

    problem: TrackingProblem
    state: TrackingState
    inputs: Inputs
    symbolic: Model
    values: dict[Any, float]

    def gap(self, running: TrackingState, *, sign: int, factor: float = 1.0) -> float:
        """Return the largest relative difference of ``factor`` × the derived field from a running one."""
        of, n = self.symbolic, self.state.activity.shape[-1]
        pairs: list[tuple[Any, torch.Tensor]] = []
        for i in range(1, n + 1):
            pairs.append((of.velocity(i), running.activity[0, i - 1]))
            pairs.append((of.costate_velocity(i, sign=sign), running.costate[0, i - 1]))
            for j in range(1, n + 1):
                pairs.append((of.weight_velocity((i, j)), running.weight[i - 1, j - 1]))
                costate = of.weight_costate_velocity((i, j), sign=sign)
                pairs.append((costate, running.weight_costate[i - 1, j - 1]))
        function = sp.lambdify(list(self.values), [derived for derived, _ in pairs], "numpy")
        expected = factor * torch.tensor(function(*self.values.values()), dtype=torch.float64)
        found = torch.stack([number for _, number in pairs])
        return float(((found - expected) / (1 + expected.abs())).abs().max())


def tracking_point(neurons: int, seed: int, dissipation: float = 0.0) -> TrackingPoint:
    """Return a random problem at a random point."""
    draw = generator(seed, "tracking point", neurons)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.as_tensor(draw.normal(size=shape))

    q, r, rw, c = (float(v) for v in draw.uniform(0.5, 2.0, 4))
    problem = TrackingProblem(q, r, rw, c, dissipation)
    state = TrackingState(tensor(1, neurons), tensor(neurons, neurons), tensor(1, neurons), tensor(neurons, neurons))
    z = float(draw.normal())
    of = tracking_model(neurons)
    values: dict[Any, float] = {Q: q, Z: z, of.c: c, of.m: r / c, of.k: 2 * rw / c, of.theta: dissipation}
    for i in range(1, neurons + 1):
        values[of.x[0][i]] = float(state.activity[0, i - 1])
        values[of.costate[0][i]] = float(state.costate[0, i - 1])
    for i, j in np.ndindex(neurons, neurons):
        values[of.weight[i + 1, j + 1]] = float(state.weight[i, j])
        values[of.weight_costate[i + 1, j + 1]] = float(state.weight_costate[i, j])
    return TrackingPoint(problem, state, Inputs(None, torch.tensor([[z]], dtype=torch.float64)), of, values)
