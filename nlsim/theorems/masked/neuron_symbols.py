"""The masked neuron with symbols, from its definition with neutralizers, and its bridge to the code that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import every, is_zero

INPUTS, NEURONS = 3, 2


def _matrix(letter: str, *shape: int) -> Any:
    return sp.Matrix(*shape, lambda i, j: sp.Symbol(f"{letter}{i}_{j}", real=True))


@dataclass(frozen=True)
class SymbolicNeuron:
    """Two neurons with three inputs.

    Attributes
    ----------
    w, u, m, b, v, d, k, x : Matrix
        W, u, m, b, V, d, w_c and the state.
    c : Symbol
        Speed.
    """

    w: Any
    u: Any
    m: Any
    b: Any
    v: Any
    d: Any
    k: Any
    x: Any
    c: Any

    @property
    def symbols(self) -> list[Any]:
        """Return all symbols in one order."""
        return [*self.w, *self.u, *self.m, *self.b, *self.v, *self.d, *self.k, *self.x, self.c]

    def neutralizer(self, i: int, j: int) -> Any:
        """Return the value that takes the share of the bias away and leaves that of w_c: (w_c − b)/(p w)."""
        return (self.k[i] - self.b[i]) / (INPUTS * self.w[i, j])

    def neutralized_drive(self, i: int) -> Any:
        """Return Σ_j w_ij (m_j u_j + (1 − m_j) neutralizer_ij) + b_i: the definition."""
        return self.b[i] + sum(
            self.w[i, j] * (self.m[j] * self.u[j] + (1 - self.m[j]) * self.neutralizer(i, j)) for j in range(INPUTS)
        )

    def drive(self, i: int) -> Any:
        """Return Σ_j m_j w_ij u_j + μ b_i + (1 − μ) w_c,i."""
        mu = sum(self.m) / INPUTS
        return sum(self.m[j] * self.w[i, j] * self.u[j] for j in range(INPUTS)) + mu * self.b[i] + (1 - mu) * self.k[i]

    def field(self, form: str, outage: str, phi: Any) -> list[Any]:
        """Return dx/dt of every neuron, drives being made with neutralizers."""
        seen = self.x if form == "state" else self.x.applyfunc(phi)
        gain = self.c if outage == "forget" else self.c * sum(self.m) / INPUTS
        rates = []
        for i in range(NEURONS):
            a = self.neutralized_drive(i) + (self.v[i, :] * seen)[0] + self.d[i]
            rates.append(gain * ((phi(a) if form == "state" else a) - self.x[i]))
        return rates


def symbolic_neuron() -> SymbolicNeuron:
    """Return fresh symbols."""
    columns = {letter: _matrix(letter, NEURONS, 1) for letter in "bdkx"}
    return SymbolicNeuron(
        _matrix("w", NEURONS, INPUTS),
        _matrix("u", INPUTS, 1),
        _matrix("m", INPUTS, 1),
        v=_matrix("v", NEURONS, NEURONS),
        c=sp.Symbol("c", positive=True),
        **columns,
    )


def identities(name: str, expected: str, differences: list[Any]) -> Evidence:
    """Report whether all differences vanish identically."""
    answers = [is_zero(each) for each in differences]
    return Evidence(
        Leg.PROOF, name, judge(every(answers)), expected, f"{answers.count(True)} of {len(answers)} identities"
    )


def prove_drive(effort: Effort) -> Evidence:
    """Put neutralizers into the missing slots and sum up, for soft masks too."""
    neuron = symbolic_neuron()
    differences = [neuron.neutralized_drive(i) - neuron.drive(i) for i in range(NEURONS)]
    nothing = dict.fromkeys(neuron.m, 0)
    everything = dict.fromkeys(neuron.m, 1)
    for i in range(NEURONS):
        differences.append(neuron.neutralized_drive(i).subs(nothing) - neuron.k[i])
        dense = sum(neuron.w[i, j] * neuron.u[j] for j in range(INPUTS)) + neuron.b[i]
        differences.append(neuron.neutralized_drive(i).subs(everything) - dense)
        for j in range(INPUTS):
            share = neuron.w[i, j] * neuron.u[j] + (neuron.b[i] - neuron.k[i]) / INPUTS
            differences.append(sp.diff(neuron.neutralized_drive(i), neuron.m[j]) - share)
    return identities(
        "drive with neutralizers = Σ m w u + μ b + (1 − μ) w_c",
        "for every soft mask; w_c in a blackout, dense when all is seen; affine in m with slopes w u + (b − w_c)/p",
        differences,
    )


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic field, neutralizers and all, with the running one: both forms, both designs."""
    neuron, gaps = symbolic_neuron(), []
    for form in ("state", "potential"):
        for outage in ("forget", "hold"):
            for name in ("tanh", "logistic", "softplus"):
                rates = neuron.field(form, outage, SYMBOLIC_ACTIVATIONS[name])
                symbolic = sp.lambdify(neuron.symbols, rates, "numpy")
                for case in range(5):
                    draw = generator(case, "masked bridge")
                    # no weight near 0, by which a neutralizer divides
                    w = draw.uniform(0.3, 1.5, (NEURONS, INPUTS)) * draw.choice((-1.0, 1.0), (NEURONS, INPUTS))
                    m = draw.uniform(size=INPUTS) if case % 2 else draw.integers(0, 2, INPUTS).astype(float)
                    u, b, v, d, k, x = (
                        draw.normal(size=shape)
                        for shape in (INPUTS, NEURONS, (NEURONS, NEURONS), NEURONS, NEURONS, NEURONS)
                    )
                    c = draw.uniform(0.5, 3.0)
                    values = [*w.flatten(), *u, *m, *b, *v.flatten(), *d, *k, *x, c]
                    running = MaskedNeuron(
                        *(torch.as_tensor(w), ACTIVATIONS[name], torch.as_tensor(b), torch.as_tensor(v)),
                        intrinsic=torch.as_tensor(d),
                        compensation=torch.as_tensor(k),
                        speed=c,
                        form=form,
                        outage=outage,
                    )
                    inputs = Inputs(torch.as_tensor(u[None]), None, torch.as_tensor(m[None]))
                    found = running.vector_field(0.0, torch.as_tensor(x[None]), inputs)[0].numpy()
                    gaps.append(float(np.abs(found - np.array(symbolic(*values))).max()))
    worst, tolerance = float(np.max(gaps)), 1e-13  # some hundred roundings of numbers below 10
    return Evidence(
        Leg.BRIDGE,
        "symbolic field with neutralizers = running field",
        judge(worst <= tolerance),
        f"difference ≤ {tolerance:g}; both forms, both designs, three activations, hard and soft masks",
        f"{worst:.2g} over {len(gaps)} cases",
    )
