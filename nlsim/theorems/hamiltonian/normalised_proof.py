"""hamiltonian.normalised-costate: the published equations and the symbolic proofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy as sp

from nlsim.core.randomness import generator
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import (
    CHAIN_3,
    CYCLE,
    DIAMOND,
    SKIP,
    Graph,
    Model,
    Sigma,
    SigmaPrime,
    every,
    is_zero,
    model,
)

Arc = tuple[int, int]
Slope = Callable[[Any], Any]

PHI, PHI_DOT = sp.symbols("phi phidot", positive=True)
"""φ and its derivative at one instant: nothing is assumed of φ but that it is positive and smooth."""


@dataclass(frozen=True)
class Published:
    """The component form (NLP 14) and the normalised form (NLP 16), as printed; sign +1, or −1 where reversed.

    Attributes
    ----------
    of : Model
        Symbols of the graph; ``of.costate`` stands for p or λ, ``of.weight_costate`` for p_w or dw/dt.
    sign : int
        s.
    slope : callable
        σ'.
    """

    of: Model
    sign: int
    slope: Slope

    def source(self, j: int) -> Any:
        """Return x_j, or u_j of an input."""
        return {**self.of.u[0], **self.of.x[0]}[j]

    def force(self, i: int) -> Any:
        """Return L_{x_i}."""
        return sp.diff(self.of.loss[0], self.of.x[0][i])

    def velocity(self, i: int) -> Any:
        """Return dx_i/dt of (NLP 14), σ being the model's own."""
        of = self.of
        return of.speed[i] * (-of.x[0][i] + Sigma(of.pre_activation(i)))

    def costate_rate(self, i: int, p: dict[int, Any]) -> Any:
        """Return dp_i/dt of (NLP 14)."""
        of = self.of
        pulled = sum(
            of.speed[k] * self.slope(of.pre_activation(k)) * of.weight[k, i] * p[k] for j, k in of.graph.arcs if j == i
        )
        return self.sign * (of.speed[i] * p[i] - pulled - of.c * self.force(i) * PHI)

    def weight_costate_rate(self, arc: Arc, p: dict[int, Any]) -> Any:
        """Return dp_w/dt of (NLP 14)."""
        of, (i, j) = self.of, arc
        local = of.speed[i] * p[i] * self.slope(of.pre_activation(i)) * self.source(j)
        return -self.sign * (local + of.c * of.k * of.weight[arc] * PHI)

    def normalised_rate(self, i: int, lam: dict[int, Any], log_rate: Any, theta: Any) -> Any:
        """Return dλ_i/dt of (NLP 16), or of (NLP 19) where reversed; ``log_rate`` is d log σ'(a_i)/dt."""
        of, s = self.of, self.sign
        pulled = sum(of.speed[k] * lam[k] * of.weight[k, i] for j, k in of.graph.arcs if j == i)
        slope = self.slope(of.pre_activation(i))
        bracket = -theta + log_rate + s * of.speed[i]
        return bracket * lam[i] - s * slope * pulled - s * of.c * self.force(i) * slope

    def acceleration(self, arc: Arc, lam: dict[int, Any], velocity: Any, theta: Any) -> Any:
        """Return d²w/dt² of (NLP 16), or of (NLP 19) where reversed."""
        of, (i, j), s = self.of, arc, self.sign
        local = of.speed[i] / (of.m * of.c) * lam[i] * self.source(j)
        return -theta * velocity + s * local + s * of.k / of.m * of.weight[arc]


def along(expression: Any, rates: dict[Any, Any]) -> Any:
    """Return the derivative of an expression in time, its symbols moving at the given rates."""
    return sum(sp.diff(expression, symbol) * rate for symbol, rate in rates.items())


def motion(of: Model, velocity: dict[Arc, Any]) -> dict[Any, Any]:
    """Return the rates of activities (derived), weights, inputs (free symbols) and φ."""
    rates = {of.x[0][i]: of.velocity(i) for i in of.graph.vertices}
    rates |= {of.weight[arc]: velocity[arc] for arc in of.weight}
    rates |= {u: sp.Symbol(f"udot{j}", real=True) for j, u in of.u[0].items()}
    return rates | {PHI: PHI_DOT}


TANGLE = Graph(
    "two cycles and a self-loop", 2, 3, ((1, 3), (2, 3), (3, 4), (4, 3), (4, 4), (4, 5), (2, 5), (5, 3)), (4, 5)
)
GRAPHS = (CHAIN_3, DIAMOND, SKIP, CYCLE, TANGLE)
"""Without and with cycles."""


def _unequal(graph: Graph) -> Model:
    return model(graph, has_equal_speeds=False)


def prove_components(effort: Effort) -> Evidence:
    """(NLP 14) is what the unnormalised Hamiltonian, H(p) = φ h(p/φ), gives by differentiation."""
    answers = []
    for graph in GRAPHS:
        of = _unequal(graph)
        costates = [*of.costate[0].values(), *of.weight_costate.values()]
        hamiltonian = PHI * of.hamiltonian.subs({p: p / PHI for p in costates}, simultaneous=True)
        for sign in (+1, -1):
            published = Published(of, sign, SigmaPrime)
            for i in graph.vertices:
                derived = -sign * sp.diff(hamiltonian, of.x[0][i])
                answers.append(is_zero(derived - published.costate_rate(i, of.costate[0])))
            for arc in of.weight:
                derived = -sign * sp.diff(hamiltonian, of.weight[arc])
                answers.append(is_zero(derived - published.weight_costate_rate(arc, of.costate[0])))
    return _report("Hamilton's equations = (NLP 14)", "every component, reversed or not, unequal speeds", answers)


def prove_forward(effort: Effort) -> Evidence:
    """From (NLP 14), λ = σ'(a) p/φ and dw/dt = −p_w/(mcφ) obey (NLP 16), or (NLP 19) where reversed."""
    answers = []
    for graph in GRAPHS:
        of = _unequal(graph)
        p, p_w = of.costate[0], of.weight_costate
        velocity = {arc: -p_w[arc] / (of.m * of.c * PHI) for arc in of.weight}
        for sign in (+1, -1):
            published = Published(of, sign, SigmaPrime)
            rates = motion(of, velocity)
            rates |= {p[i]: published.costate_rate(i, p) for i in graph.vertices}
            rates |= {p_w[arc]: published.weight_costate_rate(arc, p) for arc in of.weight}
            lam = {i: SigmaPrime(of.pre_activation(i)) * p[i] / PHI for i in graph.vertices}
            for i in graph.vertices:
                slope = SigmaPrime(of.pre_activation(i))
                expected = published.normalised_rate(i, lam, along(slope, rates) / slope, PHI_DOT / PHI)
                answers.append(is_zero(along(lam[i], rates) - expected))
            for arc in of.weight:
                expected = published.acceleration(arc, lam, velocity[arc], PHI_DOT / PHI)
                answers.append(is_zero(along(velocity[arc], rates) - expected))
    return _report(
        "(NLP 14) ⇒ (NLP 16) and (NLP 19)",
        "λ = σ'(a) p/φ, any φ, on graphs with a cycle, a self-loop, skips and unequal speeds, moving inputs",
        answers,
    )


def _backward(of: Model, sign: int, inverse: Callable[[Any, Any], Any]) -> list[Any]:
    """Return the defects of (NLP 14) when p is made from λ, which obeys (NLP 16), by a formula for the inverse."""
    published = Published(of, sign, SigmaPrime)
    lam, velocity = of.costate[0], of.weight_costate  # the same symbols, other names
    theta = PHI_DOT / PHI
    rates = motion(of, velocity)
    for i in of.graph.vertices:
        slope = SigmaPrime(of.pre_activation(i))
        rates[lam[i]] = published.normalised_rate(i, lam, along(slope, motion(of, velocity)) / slope, theta)
    rates |= {velocity[arc]: published.acceleration(arc, lam, velocity[arc], theta) for arc in of.weight}
    p = {i: inverse(lam[i], SigmaPrime(of.pre_activation(i))) for i in of.graph.vertices}
    defects = [along(p[i], rates) - published.costate_rate(i, p) for i in of.graph.vertices]
    for arc in of.weight:
        p_w = -of.m * of.c * PHI * velocity[arc]
        defects.append(along(p_w, rates) - published.weight_costate_rate(arc, p))
    return defects


def prove_backward(effort: Effort) -> Evidence:
    """From (NLP 16), p = φ λ/σ'(a) and p_w = −mcφ dw/dt obey (NLP 14)."""
    answers = []
    for graph in GRAPHS:
        for sign in (+1, -1):
            answers += [is_zero(d) for d in _backward(_unequal(graph), sign, lambda lam, slope: PHI * lam / slope)]
    return _report("(NLP 16) ⇒ (NLP 14)", "p = φ λ/σ'(a), the inverse of λ = σ'(a) p/φ where σ' ≠ 0", answers)


def erratum_control(effort: Effort) -> Evidence:
    """With the inverse of the paper's appendix, p = φ σ' λ, (NLP 14) must fail."""
    draw = generator(0, "erratum")

    def largest(inverse: Callable[[Any, Any], Any]) -> float:
        worst = 0.0
        for graph in (CHAIN_3, CYCLE):
            of = model(graph, activation=sp.tanh, loss=_squares, has_equal_speeds=False)
            for sign in (+1, -1):
                for defect in _concrete(of, sign, inverse):
                    symbols = sorted(defect.free_symbols, key=str)
                    point = draw.uniform(0.5, 1.5, len(symbols))
                    worst = max(worst, abs(float(sp.lambdify(symbols, defect, "numpy")(*point))))
        return worst

    printed, right = largest(lambda lam, slope: PHI * slope * lam), largest(lambda lam, slope: PHI * lam / slope)
    return Evidence(
        Leg.CONTROL,
        "the printed inverse p = φ σ' λ",
        judge(printed > 0.1 and right <= 1e-11),  # some hundred roundings of numbers below 100
        "defect of (NLP 14) above 0.1 at random points, where p = φ λ/σ' leaves round-off",
        f"printed {printed:.3g}, corrected {right:.2g}",
    )


def _squares(outputs: list[Any], sample: int) -> Any:
    return sum((x - sp.Symbol(f"z{k}", real=True)) ** 2 for k, x in enumerate(outputs)) / 2


def _concrete(of: Model, sign: int, inverse: Callable[[Any, Any], Any]) -> list[Any]:
    """Return :func:`_backward`'s defects with σ = tanh."""
    abstract = _backward(of, sign, inverse)
    return [defect.replace(SigmaPrime, lambda a: 1 - sp.tanh(a) ** 2).doit() for defect in abstract]


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)
