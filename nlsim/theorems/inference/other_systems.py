"""Checks on the systems beside plain inference learning: incremental, sequential, and BP-prox."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from nlsim.core.system import Held
from nlsim.integrate.explicit import RK4
from nlsim.systems.backprop import required_input
from nlsim.systems.inference.baselines import BackpropagationProximal
from nlsim.systems.inference.closed_form import linear_step
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.incremental import IncrementalLearning
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.sequential import SequentialLearning
from nlsim.systems.inference.update import LeastMeanSquares
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.inference.variant_cases import Case, cases, flat, relative, rest
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort


def joint_descent(effort: Effort) -> Evidence:
    """Incremental learning: F never rises while activities and weights both move; more weight speed, more descent."""

    def error_of(case: Case) -> float:
        worst = -float("inf")
        for rate in (0.02, 1.0):
            system = IncrementalLearning(
                case.network(), case.loss_of_output(), ConstantPrecision((1.0,) * (len(case.widths) - 1)), "free", rate
            )
            inputs = case.inputs()
            state = system.initial_state(case.weights(), inputs)
            energy = float(system.energy(0.0, state, inputs))
            for _ in range(40):
                state = RK4.advance(system, Held(inputs), state, 0.0, 0.02, 1)
                later = float(system.energy(0.0, state, inputs))
                worst = max(worst, (later - energy) / (1.0 + energy))
                energy = later
            moved = relative(state.weight, case.weights())
            if not moved > 1e-12 and float(flat(case.gradients()).norm()) > 1e-6:  # there was something to learn
                return float("inf")
        return worst

    return check_property(
        "joint descent of activities and weights",
        "F rises by no more than its rounding, 1e-14 relative, in 40 steps of RK4",
        effort,
        cases(min_depth=2),
        error_of,
        1e-14,
    )


def sequential_rest(effort: Effort) -> Evidence:
    """Sweeps from output to input, without cooling, come to rest where the flow of the same energy does."""

    def error_of(case: Case) -> float:
        inputs, weights = case.inputs(), case.weights()
        system = SequentialLearning(
            case.network(), case.loss_of_output(), LeastMeanSquares(1.0), output="clamped", step=0.1, is_cooling=False
        )
        plain = case.system(ConstantPrecision())
        flow, start = plain.moving(plain.initial_state(weights, inputs), Held(inputs))
        settled = rest(flow, start, inputs, time=10.0)
        swept = system.sweep(weights, settled, inputs, 0.1)
        moved = float((flat(swept) - flat(settled)).abs().max()) / (1.0 + float(flat(settled).abs().max()))
        begun = feedforward(case.network(), weights, required_input(inputs))[:-1]
        away = float((flat(system.sweep(weights, begun, inputs, 0.1)) - flat(begun)).norm())
        field = flat(flow.vector_field(0.0, begun, inputs)).norm()
        # one sweep from the forward pass moves every layer by about a step along the field, the top one exactly so
        return moved if away >= 0.05 * float(field) > 0 else float("inf")

    return check_property(
        "rest of sequential sweeps",
        "a sweep leaves the rest state of the flow where it is, to 1e-12",
        effort,
        cases(min_depth=2, activations=("tanh", "identity", "logistic")),
        error_of,
        1e-12,
    )


def one_layer_baseline(effort: Effort) -> Evidence:
    """With one layer BP-prox is the implicit step; with more it is not, which stability's controls show."""

    def error_of(drawn: tuple[int, int, float, int]) -> float:
        inputs, outputs, exponent, seed = drawn
        case = Case(widths=(inputs, outputs), seed=seed)
        alpha, (weight,), shown = 10**exponent, case.weights(), case.inputs()
        system = BackpropagationProximal(case.network(), case.loss_of_output(), alpha)
        found = system.jump(1.0, system.initial_state((weight,), shown), shown, shown).weight
        given, target = required_input(shown), shown.target
        assert target is not None
        source = torch.cat((given, torch.ones_like(given[:, :1])), -1)
        return relative(found, (linear_step(weight, source, target, alpha),))

    return check_property(
        "one-layer BP-prox is the implicit step",
        "weights to 1e-13, relative; α from 1e-3 to 1e3",
        effort,
        st.tuples(st.integers(1, 8), st.integers(1, 6), st.floats(-3.0, 3.0), st.integers(0, 10**6)),
        error_of,
        1e-13,
    )
