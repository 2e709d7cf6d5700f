"""Networks that learn while sensors come and go: gradients, silence, outages within an interval, and inertia."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_same_bits
from support.learning import draw, make_weights
from support.oracle import PLAIN_ACTIVATION
from support.settling import linear_output, make_system

from nlsim.core.system import Held, Inputs, interval_after
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.integrate.ordered import ORDERED_EULER
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.hamiltonian.reset import build_learning
from nlsim.systems.inference.baselines import BackpropagationSteps, GradientDescent
from nlsim.systems.inference.update import LeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.masked.learning import GatedSignal, with_constant
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Constant, HeldSamples

NET = linear_output((5, 7, 6, 4))
WEIGHTS = make_weights(NET, 3)
SAMPLES = HeldSamples(draw(1, 9, 5), draw(2, 9, 4), 1, 2.0, 3)
DEAD = 2
"""The sensor that falls silent."""


def masked(signal, *outages):
    return GatedSignal(MaskedSignal(signal, (Outages(outages, 5),)))


def run(system, control, signal, state, until, times=()):
    """Return the states at the times, and the loop."""
    with torch.no_grad():
        loop = Loop(system, control, signal, state, until=until, record_times=times)
        states = [tick.state for tick in loop if tick.is_record]
    assert loop.ending == "reached_end"
    return states, loop


@pytest.mark.parametrize("name", ["tanh", "softplus"])
def test_gradients_are_those_of_explicit_neutralizers(name):
    """u_j = −b/(p w_j) in each missing slot of each neuron, differentiated by autograd; some hundred roundings."""
    network = linear_output((5, 7, 4), name)
    weights = tuple(w.clone().requires_grad_() for w in make_weights(network, 5))
    given, target = draw(7, 6, 5), draw(8, 6, 4)
    mask = draw(9, 6, 5) > -0.2
    assert bool((~mask).any(0).all())
    assert float(weights[0].detach().abs().min()) > 1e-3
    matrix, bias = weights[0][:, :-1], weights[0][:, -1]
    neutral = -bias[:, None] / (5 * matrix)
    slots = torch.where(mask[:, None, :], given[:, None, :], neutral[None])
    hidden = PLAIN_ACTIVATION[name]((slots * matrix).sum(-1) + bias)
    output = hidden @ weights[1][:, :-1].T + weights[1][:, -1]
    expected = torch.autograd.grad(0.5 * (output - target).square().sum(), weights)
    plain = tuple(w.detach() for w in weights)
    garbage = torch.where(mask, given, torch.full_like(given, torch.nan))
    found = backpropagate(network, SQUARED_ERROR, plain, with_constant(Inputs(garbage, target, mask))).gradient
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_complete_inputs_give_the_ordinary_network():
    given, target = draw(7, 6, 5), draw(8, 6, 4)
    plain = backpropagate(NET, SQUARED_ERROR, WEIGHTS, Inputs(given, target))
    for mask in (None, torch.ones(5), torch.ones(6, 5, dtype=torch.bool)):
        found = backpropagate(NET, SQUARED_ERROR, WEIGHTS, with_constant(Inputs(given, target, mask)))
        for one, other in zip(found.gradient, plain.gradient, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_a_held_signal_stays_held_and_its_mask_is_used_up():
    signal = masked(SAMPLES, Outage(DEAD, 0.5, 1.0))
    piece = signal.piece(0.5)
    assert isinstance(piece, Held)
    assert piece.inputs.mask is None
    assert piece.inputs.input.shape == (1, 6)
    assert float(piece.inputs.input[0, -1]) == pytest.approx(0.8)
    assert [signal.edge_after(t) for t in (0.0, 0.5, 1.0)] == [0.5, 1.0, 2.0]
    assert [interval_after(signal, t) for t in (0.0, 0.5, 1.0)] == [2.0, 2.0, 2.0]


def test_an_outage_within_an_interval_makes_no_jump():
    """Weights move at the ends of intervals only, and activities go on from where they were."""
    system = make_system(NET, update=LeastMeanSquares(0.1))
    signal = masked(SAMPLES, Outage(DEAD, 2.5, 3.0))
    state = system.initial_state(WEIGHTS, signal.piece(0.0)(0.0))
    times = (2.4, 2.5, 2.6, 3.0, 3.9, 4.0, 4.1)
    states, _ = run(system, FixedStep(EXPLICIT_EULER, 0.1), signal, state, 6.0, times)
    for earlier, later in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5)):
        assert_same_bits(states[earlier].weight, states[later].weight)
    assert float((states[6].weight[0] - states[5].weight[0]).abs().max()) > 1e-4
    # a step of 0.1 at rates of about one moves activities of about one by some tenths, a restart by all of it
    begun = system.begin(states[1].weight, signal.piece(2.5)(2.5))
    moved = float((states[2].activity[1] - states[1].activity[1]).norm())
    away = float((begun[1] - states[1].activity[1]).norm())
    assert 0 < moved < 0.5 * away
    # and the outage is felt: without it the run is another one
    other, _ = run(system, FixedStep(EXPLICIT_EULER, 0.1), masked(SAMPLES), state, 6.0, times)
    assert_same_bits(other[1].activity, states[1].activity)
    assert float((other[3].activity[0] - states[3].activity[0]).abs().max()) > 1e-3


def test_inference_learns_nothing_of_the_first_layer_in_a_blackout():
    """The output is clamped and the errors are there, but nothing was seen; zero imputation moves the bias."""
    system = make_system(NET, update=LeastMeanSquares(0.5))
    dark = masked(SAMPLES, Outage(None, 0.0, 100.0))
    state = system.initial_state(WEIGHTS, dark.piece(0.0)(0.0))
    _, loop = run(system, FixedStep(EXPLICIT_EULER, 0.1), dark, state, 6.0)
    assert_same_bits((loop.state.weight[0],), (WEIGHTS[0],))
    assert float((loop.state.weight[1] - WEIGHTS[1]).abs().max()) > 1e-2
    imputed = HeldSamples(torch.zeros(9, 5, dtype=torch.float64), SAMPLES.targets, 1, 2.0, 3)
    state = system.initial_state(WEIGHTS, imputed.piece(0.0)(0.0))
    _, loop = run(system, FixedStep(EXPLICIT_EULER, 0.1), imputed, state, 6.0)
    assert_same_bits((loop.state.weight[0][:, :-1],), (WEIGHTS[0][:, :-1],))
    assert float((loop.state.weight[0][:, -1] - WEIGHTS[0][:, -1]).abs().max()) > 1e-2


def without_momentum():
    return build_learning(NET, SQUARED_ERROR, form="state", beta=0.05, eta=1.0, phi=1.0, speed=1.0)


def with_momentum():
    return build_learning(NET, SQUARED_ERROR, form="state", beta=0.05, eta=0.1, phi=1.0, speed=1.0)


@pytest.mark.parametrize(
    ("build", "control", "is_still"),
    [
        (without_momentum, FixedStep(ORDERED_EULER, 1.0), True),
        (with_momentum, FixedStep(ORDERED_EULER, 1.0), False),
        (
            lambda: BackpropagationSteps(NET, SQUARED_ERROR, GradientDescent(0.1)),
            FixedStep(EXPLICIT_EULER, 1.0),
            True,
        ),
        (lambda: make_system(NET, update=LeastMeanSquares(0.1)), FixedStep(EXPLICIT_EULER, 0.1), True),
    ],
    ids=["Hamiltonian", "Hamiltonian with momentum", "backpropagation", "inference"],
)
def test_a_silent_sensor_teaches_its_synapses_nothing(build, control, is_still):
    """From the end of the first interval of the outage to its last, bit by bit; inertia is the known exception."""
    system = build()
    samples = HeldSamples(SAMPLES.inputs, SAMPLES.targets, 1, 1.0, 3)
    signal = masked(samples, Outage(DEAD, 4.0, 9.0))
    begun = signal.piece(0.0)(0.0)
    state = (
        system.initial_state(WEIGHTS, 1)
        if build in (without_momentum, with_momentum)
        else system.initial_state(WEIGHTS, begun)
    )
    # an edge shows the state before its jump, so what the outage begins with is seen within its first interval
    (before, after, later), _ = run(system, control, signal, state, 12.0, (5.0, 9.0, 12.0))
    one, other = before.weight[0], after.weight[0]
    assert torch.equal(one[:, DEAD], other[:, DEAD]) is is_still
    alive = [j for j in range(6) if j != DEAD]
    assert float((one[:, alive] - other[:, alive]).abs().amin(0).min()) > 0
    assert float((later.weight[0][:, DEAD] - other[:, DEAD]).abs().min()) > 0


def test_costates_that_were_loaded_before_an_outage_run_down_by_themselves():
    """The exception in numbers: π ← (1 − θ dt) π without force, and W moves by −dt π/(m c)."""
    theta, mass, c, dt, steps = 0.4, 1.5, 20.0, 0.05, 40
    network = LayeredNetwork((5, 7, 4), (TANH, IDENTITY))
    system = CostateReversal(LearningProblem(network, SQUARED_ERROR, (c, c), mass, theta, 0.0))
    weights = make_weights(network, 4)
    signal = masked(Constant(Inputs(draw(1, 3, 5), draw(2, 3, 4))), Outage(DEAD, 1.0, 3.0))
    state = system.problem.initial_state(weights, 3)
    (before, after), _ = run(system, FixedStep(EXPONENTIAL_SWEEP, dt), signal, state, 3.0, (1.0, 3.0))
    loaded, start = before.weight_costate[0][:, DEAD], before.weight[0][:, DEAD]
    assert float(loaded.abs().min()) > 1e-3
    kept = 1 - theta * dt
    expected = start - dt / (mass * c) * loaded * sum(kept ** (k + 1) for k in range(steps))
    torch.testing.assert_close(after.weight[0][:, DEAD], expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(after.weight_costate[0][:, DEAD], kept**steps * loaded, rtol=1e-13, atol=0)


def test_a_sensor_that_never_worked_keeps_its_weights_whatever_the_inertia():
    network = LayeredNetwork((5, 7, 4), (TANH, IDENTITY))
    system = CostateReversal(LearningProblem(network, SQUARED_ERROR, (20.0, 20.0), 1.5, 0.4, 0.0))
    weights = make_weights(network, 4)
    signal = masked(Constant(Inputs(draw(1, 3, 5), draw(2, 3, 4))), Outage(DEAD, 0.0, 9.0))
    _, loop = run(system, FixedStep(EXPONENTIAL_SWEEP, 0.05), signal, system.problem.initial_state(weights, 3), 3.0)
    assert_same_bits((loop.state.weight[0][:, DEAD],), (weights[0][:, DEAD],))
    assert float((loop.state.weight[0][:, 0] - weights[0][:, 0]).abs().min()) > 1e-4
