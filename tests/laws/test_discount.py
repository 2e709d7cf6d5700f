"""A discount of any form: normalised costates under θ(t) are those of the problem weighted by φ(t)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.compare import assert_round_off, gap
from support.learning import make_inputs, make_problem, make_sinusoid, make_state
from support.oracle import scipy_flow

from nlsim.core.state import map_leaves
from nlsim.errors import CapabilityError
from nlsim.systems.hamiltonian.discount import Discounted
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import hamiltonian
from nlsim.systems.signals import hold

FREE = make_problem(dissipation=0.0)
NETWORK = FREE.network


def phi(t):
    return 1.0 + 0.5 * t * t


def theta(t):
    return t / phi(t)


class Unnormalised:
    """dy/dt = ∂H/∂p, dp/dt = −∂H/∂y (or + for the reversal) of H(y, p) = φ(t) Ĥ(y, p/φ), by autograd; no π in sight."""

    def __init__(self, sign):
        self.sign = sign

    def vector_field(self, t, state, inputs):
        weight = phi(t)

        def total(y):
            scaled = replace(
                y,
                costate=tuple(p / weight for p in y.costate),
                weight_costate=tuple(p / weight for p in y.weight_costate),
            )
            return weight * hamiltonian(FREE, scaled, inputs)

        slope = torch.func.grad(total)(state)
        return type(state)(
            slope.costate,
            slope.weight_costate,
            tuple(-self.sign * h for h in slope.activity),
            tuple(-self.sign * h for h in slope.weight),
        )


def times_phi(state, t):
    return replace(
        state,
        costate=tuple(phi(t) * p for p in state.costate),
        weight_costate=tuple(phi(t) * p for p in state.weight_costate),
    )


@pytest.mark.parametrize(("kind", "sign"), [(HamiltonEquations, +1), (CostateReversal, -1)])
def test_normalised_costates_are_costates_over_phi(kind, sign):
    start, signal = make_state(NETWORK, 2), make_sinusoid(NETWORK, 2)
    start = map_leaves(lambda leaf: 0.3 * leaf, start)
    begin, end = 0.4, 1.4
    found = scipy_flow(Discounted(kind(FREE), theta), signal.at, start, begin, end, rtol=1e-11)
    expected = scipy_flow(Unnormalised(sign), signal.at, times_phi(start, begin), begin, end, rtol=1e-11)
    # both at 1e-11 a step; the exact equations amplify by e^{Σ c} or so over a unit of time
    assert gap(times_phi(found, end), expected) <= 1e-7
    assert gap(scipy_flow(kind(FREE), signal.at, start, begin, end, rtol=1e-9), found) > 1e-2


@pytest.mark.parametrize("kind", [HamiltonEquations, CostateReversal])
def test_a_constant_rate_is_the_dissipation_of_the_system(kind):
    state, inputs = make_state(NETWORK, 3), make_inputs(NETWORK, 3)
    own = kind(replace(FREE, dissipation=0.7)).vector_field(0.3, state, inputs)
    assert_round_off(Discounted(kind(FREE), lambda t: 0.7).vector_field(0.3, state, inputs), own, 50)


def test_two_discounts_at_once_are_refused():
    with pytest.raises(CapabilityError, match="has a discount already"):
        Discounted(HamiltonEquations(make_problem(dissipation=0.3)), lambda t: 0.0)


def test_channels_are_those_of_the_system():
    system = Discounted(HamiltonEquations(FREE), theta)
    state, inputs = make_state(NETWORK, 3), make_inputs(NETWORK, 3)
    assert set(system.observables()) == set(HamiltonEquations(FREE).observables())
    assert float(system.hamiltonian(0.0, state, inputs)) == float(hamiltonian(FREE, state, inputs))
    assert math.isfinite(gap(system.vector_field(0.0, state, hold(inputs)(0.0)), state))
