"""hamiltonian.backprop-limit: infinitely fast signals are backpropagation."""

from __future__ import annotations

from nlsim.integrate.relaxation import ExponentialEuler, Sweep
from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import costate_gradient, partials
from nlsim.theorems.hamiltonian import backprop_numbers as numbers
from nlsim.theorems.hamiltonian import backprop_proof as proof
from nlsim.theorems.statement import Theorem

BACKPROP_LIMIT = Theorem(
    key="hamiltonian.backprop-limit",
    title="As c → ∞ the reversed costates are backpropagation",
    statement=(
        "The slow manifold of the costate-only reversal is π_i = Σ_k σ'(a_k) w_ki π_k + L_x_i: on an acyclic "
        "graph π_i = ∂L/∂x_i and σ'(a_i) π_i x_j = ∂L/∂w_ij at the current input and weights; with cycles it is "
        "the derivative through the fixed point. Under moving inputs the gradient lags by O(1/c). At static "
        "input it is exact at every c if θ = 0, and attenuated by (c/(c+θ))^(D−l+1) in layer l of D if θ > 0. "
        "Sweep-ordered steppers keep the limit at fixed dt."
    ),
    hypotheses=(
        "equal speeds c_i = c",
        "σ differentiable; inputs, targets and weights smooth in time",
        "with cycles: −I + D_σ W has its spectrum in the left half plane",
        "costates reversed: the exact equations repel forward solutions from the same manifold",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, Corollary 1, eq. 17; rates and attenuation derived here",
    about=(
        CostateReversal,
        HamiltonEquations,
        partials,
        costate_gradient,
        backpropagate,
        Sweep,
        ExponentialEuler,
    ),
    checks=(
        proof.prove_limit,
        proof.prove_total_derivative,
        proof.prove_implicit_derivative,
        proof.prove_static_exactness,
        proof.prove_attenuation,
        numbers.bridge_field,
        numbers.static_exactness,
        numbers.attenuation,
        numbers.gradient_order,
        numbers.stepper_table,
        numbers.unit_delay_control,
        numbers.forward_control,
    ),
)
