"""Scenarios on graphs: the same story on layers and on their digraph, and a graph with cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import nlsim
from nlsim.core.state import leaves
from nlsim.core.system import Inputs
from nlsim.errors import ScenarioError
from nlsim.integrate.explicit import RK4
from nlsim.scenario.load import parse_scenario
from nlsim.simulation.build import build
from nlsim.systems.activation import TANH
from nlsim.systems.digraph import as_digraph, join_activity, join_weights
from nlsim.systems.hamiltonian.learning import CostateReversal, RecurrentCostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold

CYCLIC = """\
until = 2.0
[system]
name = "costate_reversal"
speed = [10.0, 20.0, 30.0]
mass = 2.0
dissipation = 2.0
[system.network]
inputs = 2
neurons = 3
arcs = "all"
outputs = [4]
bias = true
[signal]
name = "sinusoids"
samples = 3
[stepper]
name = "rk4"
dt = 0.01
[numerics]
dtype = "float64"
[record]
every = 0.1
channels = ["loss", "gradient_error", "activity/1", "weight/1"]
"""


def test_learning_on_layers_and_on_their_digraph_agrees() -> None:
    layered = LayeredNetwork((3, 4, 2), (TANH,) * 2)
    weights = layered.initial_weights(0, dtype=torch.float64, device="cpu")
    draw = torch.Generator().manual_seed(0)
    inputs = Inputs(*(torch.randn(5, n, generator=draw, dtype=torch.float64) for n in (3, 2)))
    problem = LearningProblem(layered, SQUARED_ERROR, (20.0, 20.0), 0.5, 2.0, 0.1)
    joint = LearningProblem(as_digraph(layered), SQUARED_ERROR, (20.0,), 0.5, 2.0, 0.1)
    one = RK4.advance(CostateReversal(problem), hold(inputs), problem.initial_state(weights, 5), 0.0, 0.01, 200)
    start = joint.initial_state(join_weights(layered, weights), 5)
    other = RK4.advance(RecurrentCostateReversal(joint), hold(inputs), start, 0.0, 0.01, 200)
    assert float((one.weight[0] - weights[0]).abs().max()) > 0.1  # something was learned
    # 200 steps of a contracting flow: a few hundred roundings of the largest number, the weight costates
    for found, expected in (
        (other.weight, join_weights(layered, one.weight)),
        (other.activity, join_activity(one.activity)),
        (other.costate, join_activity(one.costate)),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_cyclic_graph_learns_from_a_scenario(tmp_path: Path) -> None:
    outcome = nlsim.run(parse_scenario(CYCLIC), tmp_path / "a.nc")
    assert outcome.ending == "reached_end"
    with nlsim.open_run(outcome.path) as data:
        assert data["activity_1"].sizes == {"time": 21, "sample": 3, "layer_1": 3}
        assert data["weight_1"].shape == (21, 3, 6)
        assert np.isfinite(data["gradient_error"].values).all()
        assert data["loss"].values[-10:].mean() < data["loss"].values[1:11].mean()


def test_speeds_are_those_of_the_neurons() -> None:
    problem = build(parse_scenario(CYCLIC)).system.problem
    assert problem.mean_speed == 20.0
    torch.testing.assert_close(problem.speed_of(0), torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64))
    with pytest.raises(ScenarioError, match="does not fit the network") as caught:
        build(parse_scenario(CYCLIC, overrides=["system.speed=[1.0, 2.0]"]))
    assert "3 (one per neuron)" in str(caught.value.allowed)


def test_everything_is_where_the_scenario_says() -> None:
    simulation = build(parse_scenario(CYCLIC, overrides=["numerics.dtype=float32"]))
    assert {leaf.dtype for leaf in leaves(simulation.state)} == {torch.float32}
    assert simulation.system.problem.network.speeds.dtype == torch.float32
