"""The linear-quadratic problem in symbols: everything derived from its Hamiltonian by differentiation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadratic,
    LinearQuadraticEquations,
    LinearQuadraticReversal,
    LinearQuadraticState,
)
from nlsim.systems.hamiltonian.riccati import Convention, FeedbackState, RiccatiFeedback, RiccatiFlow
from nlsim.theorems.evidence import Evidence, Leg, judge

Expression = Any


@dataclass(frozen=True)
class QuadraticModel:
    """Symbols of n-dimensional A, S, Q, η, of x, π, z, P, g, and H/φ.

    The fields of all systems are derivatives of H; the gain and offset equations are what Hamilton's
    equations demand of π = P x + g.
    """

    drift: Any
    actuation: Any
    tracking_weight: Any
    dissipation: Any
    activity: Any
    costate: Any
    target: Any
    gain: Any
    offset: Any
    hamiltonian: Expression

    def velocity(self) -> Any:
        """Return dx/dt = ∂H/∂π."""
        return sp.Matrix([sp.diff(self.hamiltonian, each) for each in self.costate])

    def costate_velocity(self, *, sign: int = 1) -> Any:
        """Return dπ/dt = −s ∂H/∂x − η π."""
        slope = sp.Matrix([sp.diff(self.hamiltonian, each) for each in self.activity])
        return -sign * slope - self.dissipation * self.costate

    def feedback_demands(self, *, sign: int = 1) -> tuple[Any, Any]:
        """Return (dP/dt, dg/dt) for which π = P x + g solves the equations at every x."""
        on_law = dict(zip(self.costate, self.gain * self.activity + self.offset, strict=True))
        rest = (self.costate_velocity(sign=sign) - self.gain * self.velocity()).subs(on_law)
        rest = rest.applyfunc(sp.expand)
        nowhere = dict.fromkeys(self.activity, 0)
        return rest.jacobian(self.activity), rest.subs(nowhere)

    def feedback(self, convention: Convention) -> tuple[Any, Any]:
        """Return (dP/dt, dg/dt) of a convention, by what the convention says in words."""
        exact = self.feedback_demands()
        if convention is Convention.UNREVERSED:
            return exact
        if convention is Convention.ALL_TERMS:
            return -exact[0], -exact[1]
        if convention is Convention.COSTATE_ONLY:
            return self.feedback_demands(sign=-1)
        # flip what is left at η = 0, keep what η brought in
        without = tuple(each.subs(self.dissipation, 0) for each in exact)
        return exact[0] - 2 * without[0], exact[1] - 2 * without[1]


def quadratic_model(n: int) -> QuadraticModel:
    """Write down H/φ = ½ (x − z)ᵀQ(x − z) + πᵀA x − ½ πᵀSπ with n states."""

    def square(letter: str, *, is_symmetric: bool = False) -> Any:
        def entry(i: int, j: int) -> Any:
            i, j = (min(i, j), max(i, j)) if is_symmetric else (i, j)
            return sp.Symbol(f"{letter}{i}{j}", real=True)

        return sp.Matrix(n, n, entry)

    def column(letter: str) -> Any:
        return sp.Matrix([sp.Symbol(f"{letter}{i}", real=True) for i in range(n)])

    A, S, Q = square("A"), square("S", is_symmetric=True), square("Q", is_symmetric=True)
    x, pi, z = column("x"), column("p"), column("z")
    h = ((x - z).T * Q * (x - z))[0] / 2 + (pi.T * A * x)[0] - (pi.T * S * pi)[0] / 2
    eta = sp.Symbol("eta", real=True)
    return QuadraticModel(A, S, Q, eta, x, pi, z, square("P"), column("g"), sp.expand(h))


def polynomial_is_zero(expression: Expression) -> bool:
    """Whether a polynomial or matrix of polynomials vanishes identically: expansion decides."""
    entries = list(expression) if isinstance(expression, sp.MatrixBase) else [expression]
    return all(sp.expand(each) == 0 for each in entries)


def bridge_quadratic(dissipation: float) -> Evidence:
    """Compare every derived field with the running one at random points, n = 1, 2 and 3."""
    # a field value is a sum of at most some 60 products of three numbers below 4, formed in two orders:
    # a few hundred roundings of 2e-16 times 64
    tolerance, worst, count = 1e-12, 0.0, 0
    for n in (1, 2, 3):
        of = quadratic_model(n)
        draw = generator(n, "bridge quadratic")

        def tensor(*shape: int, draw: np.random.Generator = draw) -> torch.Tensor:
            return torch.as_tensor(draw.normal(size=shape))

        s, q = tensor(n, n), tensor(n, n)
        problem = LinearQuadratic(tensor(n, n), s @ s.mT, q @ q.mT, dissipation)
        x, pi, z, gain, offset = tensor(1, n), tensor(1, n), tensor(1, n), tensor(n, n), tensor(1, n)
        values = {of.dissipation: dissipation}
        for symbols, numbers in (
            (of.drift, problem.drift),
            (of.actuation, problem.actuation),
            (of.tracking_weight, problem.tracking_weight),
            (of.activity, x),
            (of.costate, pi),
            (of.target, z),
            (of.gain, gain),
            (of.offset, offset),
        ):
            values |= dict(zip(symbols, numbers.flatten().tolist(), strict=True))

        def gap(derived: Any, running: torch.Tensor, values: dict[Any, float] = values) -> float:
            function = sp.lambdify(list(values), list(derived), "numpy")
            expected = torch.tensor(function(*values.values()), dtype=torch.float64)
            return float(((running.flatten() - expected) / (1 + expected.abs())).abs().max())

        state, inputs = LinearQuadraticState(x, pi), Inputs(None, z)
        for system, sign in ((LinearQuadraticEquations(problem), 1), (LinearQuadraticReversal(problem), -1)):
            field = system.vector_field(0.0, state, inputs)
            worst = max(worst, gap(of.velocity(), field.activity))
            worst = max(worst, gap(of.costate_velocity(sign=sign), field.costate))
            count += 2
        for convention in Convention:
            gain_velocity, offset_velocity = of.feedback(convention)
            flow = RiccatiFlow(problem, convention).vector_field(0.0, gain, inputs)
            law = RiccatiFeedback(problem, convention).vector_field(0.0, FeedbackState(x, gain, offset), inputs)
            steered = of.drift * of.activity - of.actuation * (of.gain * of.activity + of.offset)
            worst = max(worst, gap(gain_velocity, flow), gap(gain_velocity, law.gain))
            worst = max(worst, gap(offset_velocity, law.offset), gap(steered, law.activity))
            count += 4
    return Evidence(
        Leg.BRIDGE,
        "symbolic fields = torch fields",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; Hamilton, reversed, Riccati and feedback fields, n = 1, 2, 3",
        f"{worst:.2g} over {count} fields, η = {dissipation:g}",
    )
