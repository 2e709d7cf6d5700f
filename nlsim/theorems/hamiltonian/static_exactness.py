"""hamiltonian.static-exactness: at static input the reversed costates rest on backpropagation at any speed."""

from __future__ import annotations

from dataclasses import replace

import torch

from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.observables import relative_error
from nlsim.systems.hamiltonian.problem import LearningProblem, costate_gradient
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian import backprop_numbers as numbers
from nlsim.theorems.hamiltonian import backprop_proof as proof
from nlsim.theorems.hamiltonian.nets import Case
from nlsim.theorems.statement import Effort, Theorem

NET = Case(widths=(3, 5, 4, 2), samples=4, seed=7, speed=2.0)


def unequal_speeds(effort: Effort) -> Evidence:
    """The exactness does not need equal speeds: c_l π_l rests at c ∂L/∂x_l and the gradient is unchanged."""
    problem = replace(NET.problem(), speed=(0.7, 3.0, 11.0))
    error = _gradient_error(problem)
    return Evidence(
        Leg.PROPERTY,
        "unequal speeds of the layers",
        judge(error <= 1e-13),
        "gradient error ≤ 1e-13 at c = 0.7, 3, 11",
        f"{error:.2g}",
    )


def dissipation_control(effort: Effort) -> Evidence:
    """With θ > 0 the rest state must not be backpropagation: the bias of the first layer is about Dθ/c."""
    case = replace(NET, dissipation=0.02)
    problem = case.problem()
    found = costate_gradient(problem, numbers.settle(problem, case.weights(), case.inputs()), case.inputs())
    exact = backpropagate(problem.network, problem.loss, case.weights(), case.inputs()).gradient
    bias = float(relative_error(found[:1], exact[:1]))
    depth = problem.network.depth
    expected = 1 - (case.speed / (case.speed + case.dissipation)) ** depth
    return Evidence(
        Leg.CONTROL,
        "θ > 0",
        judge(abs(bias - expected) <= 1e-12 and bias > 0.01),
        f"first layer off by 1 − (c/(c+θ))^D = {expected:.6f}, about Dθ/c = {depth * 0.01:g}",
        f"{bias:.6f}",
    )


def moving_control(effort: Effort) -> Evidence:
    """With moving inputs the gradient must lag, at the same finite speed."""
    found, exact = numbers.moving_gradients(replace(NET, speed=40.0))
    error = float(relative_error(tuple(found), tuple(exact)))
    return Evidence(Leg.CONTROL, "moving input", judge(error > 1e-3), "gradient error above 1e-3", f"{error:.3g}")


def _gradient_error(problem: LearningProblem[LayeredNetwork]) -> float:
    weights, inputs = NET.weights(), NET.inputs()
    with torch.no_grad():
        rest = numbers.settle(problem, weights, inputs)
        exact = backpropagate(problem.network, problem.loss, weights, inputs).gradient
        return float(relative_error(costate_gradient(problem, rest, inputs), exact))


STATIC_EXACTNESS = Theorem(
    key="hamiltonian.static-exactness",
    title="At static input and θ = 0 the rest state is backpropagation at any speed",
    statement=(
        "If u, z and w are constant and θ = 0, the equilibrium of the costate-only reversal carries the exact "
        "backpropagation gradient for every c > 0, also with unequal c_l. With φ = e^{θt} the costate of layer l "
        "is attenuated by (c/(c+θ))^(D−l+1), so θ biases the gradient by about (D−l+1)θ/c."
    ),
    hypotheses=("static input, target and weights", "for the attenuation: a layered network with equal speeds"),
    source="derived here (RD-2); in the limit Betti & Gori, Corollary 1",
    about=(CostateReversal, costate_gradient, backpropagate),
    checks=(
        proof.prove_static_exactness,
        proof.prove_attenuation,
        numbers.bridge_field,
        numbers.static_exactness,
        numbers.attenuation,
        unequal_speeds,
        dissipation_control,
        moving_control,
    ),
)
