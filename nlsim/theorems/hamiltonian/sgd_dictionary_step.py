"""hamiltonian.sgd-dictionary: what the step size must not decide."""

from __future__ import annotations

from itertools import pairwise

import torch

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4, ExplicitRungeKutta
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.state_space import layered_form
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.statement import Effort

ONE = (layered_form(LayeredNetwork((1, 1), (TANH,), has_bias=False)), SQUARED_ERROR)
"""One neuron with one weight: the net of the limit dt → 0."""


def one_weight(dt: float, eta: float, stepper: ExplicitRungeKutta = EXPLICIT_EULER) -> float:
    """Return the weight of the one-neuron net at t = 5."""
    learning = HamiltonianLearning(*ONE, LearningConstants(1.0, eta, 1.0), (1.0,))
    state = learning.initial_state((torch.full((1, 1), 0.2, dtype=torch.float64),), 1)
    inputs = Inputs(torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 0.8, dtype=torch.float64))
    return float(stepper.advance(learning, hold(inputs), state, 0.0, dt, round(5.0 / dt)).weight[0])


STEPS = [0.1, 0.05, 0.025, 0.0125, 0.00625]


def step_size_order(effort: Effort) -> Evidence:
    """With dissipation, weights at a fixed time have a limit as dt → 0, come to at first order."""
    exact = one_weight(0.01, 0.1, RK4)  # to about 1e-9
    found = [one_weight(dt, 0.1) for dt in STEPS]
    errors = [abs(each - exact) for each in found]
    slope = observed_order(STEPS[1:], errors[1:])
    local = ["", *(f"{p:.3f}" for p in pairwise_orders(STEPS, errors))]
    rows = tuple(
        (f"{dt:g}", f"{w:.6f}", f"{e:.2e}", p) for dt, w, e, p in zip(STEPS, found, errors, local, strict=True)
    )
    return Evidence(
        Leg.ORDER,
        "dt → 0 at θ = η = 0.1, t = 5",
        judge(abs(slope - 1) <= 0.05),
        "slope 1 ± 0.05 in dt",
        f"{slope:.4f}; limit w = {exact:.6f} from 0.2",
        (Table("one neuron, one weight", ("dt", "w(5)", "error", "slope"), rows),),
    )


def per_step_control(effort: Effort) -> Evidence:
    """Apply the dissipation once a step, whatever its length (η = 0.1/dt): learning must vanish with dt."""
    found = [one_weight(dt, 0.1 / dt) - 0.2 for dt in STEPS]
    kept = [one_weight(dt, 0.1) - 0.2 for dt in STEPS]
    ratios = [b / a for a, b in pairwise(found)]
    is_vanishing = all(ratio < 0.75 for ratio in ratios) and abs(found[-1]) < 0.2 * abs(kept[-1])
    return Evidence(
        Leg.CONTROL,
        "dissipation applied per step instead of per time",
        judge(is_vanishing and min(kept) > 0.9 * max(kept)),
        "what is learned falls by more than a quarter a halving of dt; per time it changes by less than a tenth in all",
        f"per step {', '.join(f'{w:.3f}' for w in found)}; per time {', '.join(f'{w:.3f}' for w in kept)}",
    )
