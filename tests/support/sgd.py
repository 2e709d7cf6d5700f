"""Settings of SGD, torch's own optimiser, and Hamiltonian Learning in the settings that imitate it."""

from __future__ import annotations

import pytest
import torch

from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.hamiltonian.robust import HamiltonianLearning
from nlsim.systems.hamiltonian.sgd_dictionary import from_sgd
from nlsim.systems.hamiltonian.state_space import (
    output_form,
    split_form,
    state_form,
)
from nlsim.systems.loss import CROSS_ENTROPY
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold
from support.oracle import autograd_gradient
from support.robust import make_inputs

SETTINGS = {
    "GD-a": (0.01, 0.0, 0.0, 1.0),
    "GD-b": (0.001, 0.0, 0.0, 0.5),
    "Mom-a": (0.01, 0.05, 0.6, 1.0),
    "Mom-b": (0.01, 0.1, 0.5, 0.5),
    "strong momentum": (0.02, 0.9, 0.0, 0.37),
}
"""Learning rate, momentum, dampening and τ; the first four are those of Melacci et al., section 5."""

NET = LayeredNetwork((3, 4, 5, 2), (TANH, TANH, IDENTITY))
LEARNING_FORMS = {"output": output_form(NET), "state": state_form(NET), "state and output": split_form(NET, 1)}
each_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
each_learning_form = pytest.mark.parametrize("network", LEARNING_FORMS.values(), ids=LEARNING_FORMS)
STEPS = 40


def batches(count=STEPS, samples=2):
    return [make_inputs(samples, seed=50 + index) for index in range(count)]


def torch_sgd(setting, weights, stream, *, weight_decay=0.0):
    """Return the weights after each step of torch's own optimiser along autograd's gradients."""
    rate, momentum, dampening, _ = setting
    own = [w.clone().requires_grad_() for w in weights]
    optimiser = torch.optim.SGD(own, lr=rate, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    trajectory = []
    for inputs in stream:
        for w, g in zip(own, autograd_gradient(NET, CROSS_ENTROPY, own, inputs), strict=True):
            w.grad = g
        optimiser.step()
        trajectory.append(tuple(w.detach().clone() for w in own))
    return trajectory


def learn(system, stepper, weights, stream, tau):
    """Return the weights after each sample, the state being reset after each."""
    state, trajectory = system.initial_state(weights, stream[0].input.shape[0]), []
    for index, inputs in enumerate(stream):
        state = stepper.advance(system, hold(inputs), state, index * tau, tau, 1)
        trajectory.append(state.weight)
        state = system.jump((index + 1) * tau, state, inputs, inputs)
    return trajectory


def as_learning(network, setting, *, weight_decay=0.0):
    rate, momentum, dampening, tau = setting
    constants = from_sgd(rate, momentum, dampening, tau=tau, weight_decay=weight_decay)
    return SampleReset(HamiltonianLearning(network, CROSS_ENTROPY, constants, (1 / tau,) * len(network.widths)))
