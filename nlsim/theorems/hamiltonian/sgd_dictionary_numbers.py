"""hamiltonian.sgd-dictionary: properties and controls on the running code."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.integrate.ordered import ORDERED_EULER, ORDERED_EULER_OLD, OrderedEuler
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import FirstStep
from nlsim.systems.hamiltonian.sgd_dictionary import from_sgd
from nlsim.systems.hamiltonian.state_space import (
    StateSpaceNetwork,
    layered_form,
    output_form,
    split_form,
    state_form,
)
from nlsim.systems.hamiltonian.transition import WholeTransition
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort

Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class Setting:
    """Settings of SGD with the step of Hamiltonian Learning."""

    rate: float
    momentum: float
    dampening: float
    tau: float

    def constants(self) -> LearningConstants:
        """Return the constants by the dictionary."""
        return from_sgd(self.rate, self.momentum, self.dampening, tau=self.tau)


SETTINGS = {
    "GD-a": Setting(0.01, 0.0, 0.0, 1.0),
    "GD-b": Setting(0.001, 0.0, 0.0, 0.5),
    "Mom-a": Setting(0.01, 0.05, 0.6, 1.0),
    "Mom-b": Setting(0.01, 0.1, 0.5, 0.5),
}
"""The settings of Melacci et al., section 5."""


def forms(network: LayeredNetwork) -> dict[str, StateSpaceNetwork]:
    """Return the output, state and state + output implementations of a network."""
    found = {"output": output_form(network), "state": state_form(network)}
    if network.depth > 1:
        found["state + output"] = split_form(network, network.depth // 2)
    return found


def torch_sgd(case: Case, batches: list[Inputs], setting: Setting) -> list[Weights]:
    """Return the weights after each step of torch's own SGD with gradients from torch's own autograd."""
    problem = case.problem()
    weights = [w.clone().requires_grad_() for w in case.weights()]
    optimiser = torch.optim.SGD(weights, lr=setting.rate, momentum=setting.momentum, dampening=setting.dampening)
    trajectory = []
    for inputs in batches:
        assert inputs.input is not None
        assert inputs.target is not None
        optimiser.zero_grad()
        with torch.enable_grad():
            output = problem.network.forward(tuple(weights), inputs.input)[-1]
            torch.autograd.backward(problem.loss.value(output, inputs.target).sum())
        optimiser.step()
        trajectory.append(tuple(w.detach().clone() for w in weights))
    return trajectory


def learn(
    case: Case,
    form: StateSpaceNetwork,
    batches: list[Inputs],
    constants: LearningConstants,
    tau: float,
    stepper: OrderedEuler = ORDERED_EULER,
) -> list[Weights]:
    """Return the weights after each sample of Hamiltonian Learning, the state being reset after each."""
    speed = (1 / tau,) * len(form.widths)
    system = SampleReset(HamiltonianLearning(form, case.problem().loss, constants, speed))
    state, trajectory = system.initial_state(case.weights(), case.samples), []
    for step, inputs in enumerate(batches):
        state = stepper.advance(system, hold(inputs), state, step * tau, tau, 1)
        trajectory.append(state.weight)
        state = system.jump((step + 1) * tau, state, inputs, inputs)
    return trajectory


def stream_of(case: Case, count: int) -> list[Inputs]:
    """Return different batches."""
    return [replace(case, seed=case.seed + 1 + j).inputs() for j in range(count)]


def gap(found: list[Weights], expected: list[Weights]) -> float:
    """Return the largest difference of any weight at any time."""
    pairs = [(f, e) for fs, es in zip(found, expected, strict=True) for f, e in zip(fs, es, strict=True)]
    return max(float((f - e).abs().max()) for f, e in pairs)


def equals_sgd(effort: Effort) -> Evidence:
    """Hamiltonian Learning against torch.optim.SGD, at every step, in every form, over random nets and settings."""
    count = 10

    def error_of(drawn: tuple[Case, Setting]) -> float:
        case, setting = drawn
        batches = stream_of(case, count)
        expected = torch_sgd(case, batches, setting)
        network = case.problem().network
        return max(
            gap(learn(case, form, batches, setting.constants(), setting.tau), expected)
            for form in forms(network).values()
        )

    free = st.builds(Setting, st.floats(1e-4, 0.02), st.floats(0.01, 0.95), st.floats(0.0, 0.9), st.floats(0.1, 2.0))
    return check_property(
        f"{count} steps = {count} steps of torch.optim.SGD",
        # ten steps that each move weights of size 1 by some rounding; buffers up to 20 gradients of size 10
        "weights equal to 1e-13 at every step; output, state and state + output forms; the paper's four settings "
        "and random ones",
        effort,
        st.tuples(cases(max_depth=3), st.one_of(st.sampled_from(list(SETTINGS.values())), free)),
        error_of,
        1e-13,
    )


def is_gradient(effort: Effort) -> Evidence:
    """The running field is made of the derivatives of the running H' by torch.func."""

    def error_of(drawn: tuple[Case, int]) -> float:
        case, kind = drawn
        learning, state, inputs = _generic(case, kind)
        eta, beta = 0.3, 0.4

        def hamiltonian(h: Weights, theta: Weights, z: Weights) -> Tensor:
            return learning.hamiltonian(0.0, replace(state, activity=h, weight=theta, costate=z), inputs)

        by_h, by_theta, by_z = torch.func.grad(hamiltonian, argnums=(0, 1, 2))(
            state.activity, state.weight, state.costate
        )
        field = learning.vector_field(0.0, state, inputs)
        pairs = [
            *zip(field.activity, by_z, strict=True),
            *((f, -beta * q) for f, q in zip(field.weight, state.weight_costate, strict=True)),
            *((f, g - eta * z) for f, g, z in zip(field.costate, by_h, state.costate, strict=True)),
            *((f, g - eta * q) for f, g, q in zip(field.weight_costate, by_theta, state.weight_costate, strict=True)),
        ]
        return max(float(((f - e).abs() / (1 + e.abs())).max()) for f, e in pairs)

    return check_property(
        "field = derivatives of the robust Hamiltonian",
        # sums of some thirty products of numbers up to 50, evaluated twice: some hundred roundings of each
        "relative difference ≤ 1e-12; output, state, layered, split and recurrent networks",
        effort,
        st.tuples(cases(max_depth=3), st.integers(0, 4)),
        error_of,
        1e-12,
    )


def _generic(case: Case, kind: int) -> tuple[HamiltonianLearning, LearningState, Inputs]:
    """Return one of five forms of a case at a random point."""
    network = case.problem().network
    if kind == 4:  # recurrent: the last layer's output is read again
        widths = (network.widths[0] + network.widths[-1], *network.widths[1:])
        network = LayeredNetwork(widths, network.activations, network.has_bias)
        form = StateSpaceNetwork(WholeTransition(network), None)
    elif kind == 3:
        form = layered_form(network)
    else:
        available = list(forms(network).values())
        form = available[kind % len(available)]
    draw = torch.Generator().manual_seed(case.seed)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    weights = tuple(tensor(*network.weight_shape(layer)) for layer in range(network.depth))
    speeds = tuple(1.0 + 0.5 * part for part in range(len(form.widths)))
    learning = HamiltonianLearning(form, LOSSES[case.loss], LearningConstants(0.4, 0.3, 1.7, 0.2), speeds)
    parts = tuple(tensor(case.samples, n) for n in form.widths)
    costates = tuple(tensor(case.samples, n) for n in form.widths)
    state = LearningState(parts, weights, costates, tuple(tensor(*w.shape) for w in weights))
    return learning, state, case.inputs()


CONTROL_CASE = Case(widths=(3, 4, 2), activation="tanh", loss="cross_entropy", samples=1, seed=5)


def first_step_control(effort: Effort) -> Evidence:
    """Leave out the first-step rule: differences of the order of 1e-3 must appear where ρ > 0."""
    batches, cells = stream_of(CONTROL_CASE, 40), []
    is_right = True
    form = output_form(CONTROL_CASE.problem().network)
    for name, setting in SETTINGS.items():
        expected = torch_sgd(CONTROL_CASE, batches, setting)
        constants = setting.constants()
        phi = constants.phi.later if isinstance(constants.phi, FirstStep) else constants.phi
        without = gap(learn(CONTROL_CASE, form, batches, replace(constants, phi=phi), setting.tau), expected)
        within = gap(learn(CONTROL_CASE, form, batches, constants, setting.tau), expected)
        is_right &= within <= 1e-14 and (1e-3 < without < 1e-2 if setting.dampening else without <= 1e-14)
        cells.append((name, f"{within:.1e}", f"{without:.1e}"))
    return Evidence(
        Leg.CONTROL,
        "without the first-step rule",
        judge(is_right),
        "with dampening weights differ by 1e-3 to 1e-2, with the rule or without dampening by round-off",
        ", ".join(f"{name} {without}" for name, _, without in cells),
        (Table("largest difference from torch.optim.SGD, 40 steps", ("setting", "with", "without"), tuple(cells)),),
    )


def old_order_control(effort: Effort) -> Evidence:
    """Move the weights with the old ω: it must differ from SGD, by a gradient one step late."""
    batches = stream_of(CONTROL_CASE, 40)
    form, setting = split_form(CONTROL_CASE.problem().network, 1), SETTINGS["Mom-b"]
    expected = torch_sgd(CONTROL_CASE, batches, setting)
    old = learn(CONTROL_CASE, form, batches, setting.constants(), setting.tau, ORDERED_EULER_OLD)
    new = learn(CONTROL_CASE, form, batches, setting.constants(), setting.tau)
    return Evidence(
        Leg.CONTROL,
        "weights moved with the old ω",
        judge(gap(old, expected) > 1e-3 and gap(new, expected) <= 1e-14),
        "differs from SGD by more than 1e-3, where the new ω gives equality",
        f"old {gap(old, expected):.2g}, new {gap(new, expected):.2g}",
    )
