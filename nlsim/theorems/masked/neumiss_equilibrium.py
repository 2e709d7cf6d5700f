"""masked.neumiss-equilibrium: a flow whose mask gates output and input rests at the conditional Gaussian mean."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.masked.neumiss import NeuMissFlow, gaussian_conditioning
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron_symbols import identities
from nlsim.theorems.masked.runs import run
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def symbolic_field(s: Any, mean: Any, m: Any, x: Any, h: Any) -> Any:
    """Return −h + m ⊙ (S h) + m ⊙ (x − x̄)."""
    return -h + m.multiply_elementwise(s * h) + m.multiply_elementwise(x - mean)


def prove_rest(effort: Effort) -> Evidence:
    """Three inputs, every mask: the rest state and Gaussian conditioning, with a symbolic covariance."""
    sigma = sp.Matrix(3, 3, lambda i, j: sp.Symbol(f"k{min(i, j)}{max(i, j)}", real=True))
    mean, x, h = (
        sp.Matrix(3, 1, lambda i, _, name=name: sp.Symbol(f"{name}{i}", real=True)) for name in ("r", "x", "h")
    )
    differences = []
    for mask in itertools.product((0, 1), repeat=3):
        seen = [j for j in range(3) if mask[j]]
        hidden = [j for j in range(3) if not mask[j]]
        rest = sp.zeros(3, 1)
        if seen:
            block, gap = sigma.extract(seen, seen), (x - mean).extract(seen, [0])
            inverse = block.adjugate() / block.det()
            for place, value in zip(seen, inverse * gap, strict=True):
                rest[place] = value
        m = sp.Matrix(mask)
        field = symbolic_field(sp.eye(3) - sigma, mean, m, x, rest)
        differences += list(field)
        # the Jacobian is minus Σ_oo on what is seen and −1 on what is not: eigenvalues below 0 where Σ_oo ≻ 0
        jacobian = symbolic_field(sp.eye(3) - sigma, mean, m, x, h).jacobian(h)
        differences += list(jacobian.extract(seen, seen) + sigma.extract(seen, seen)) if seen else []
        differences += list(jacobian.extract(hidden, hidden) + sp.eye(len(hidden))) if hidden else []
        differences += list(jacobian.extract(hidden, seen)) if hidden and seen else []
        # what is left of x_mis after its guess is not correlated with anything seen: that is the conditional mean
        if hidden and seen:
            gain = sigma.extract(hidden, seen) * inverse
            differences += list(sigma.extract(hidden, seen) - gain * sigma.extract(seen, seen))
            guess = sigma.extract(hidden, list(range(3))) * rest
            differences += list(guess - gain * (x - mean).extract(seen, [0]))
    return identities(
        "rest state, Jacobian and conditional mean",
        "h_o = Σ_oo⁻¹(x_o − x̄_o), h_mis = 0; Jacobian −Σ_oo, −1; Σ_mis,o h_o is the best linear guess; all 8 masks",
        [sp.cancel(each) for each in differences],
    )


@dataclass(frozen=True)
class Gaussian:
    """A random Gaussian, a mask and a sample of it.

    Attributes
    ----------
    seed, size : int
        What decides, and p.
    low, high : float
        Smallest and largest eigenvalue of Σ.
    """

    seed: int
    size: int
    low: float = 0.2
    high: float = 1.8

    @property
    def covariance(self) -> Tensor:
        """Return Σ."""
        draw = generator(self.seed, "covariance")
        turn, _ = np.linalg.qr(draw.normal(size=(self.size, self.size)))
        levels = np.concatenate([[self.low, self.high], draw.uniform(self.low, self.high, self.size)])[: self.size]
        matrix = (turn * levels) @ turn.T
        return torch.as_tensor((matrix + matrix.T) / 2)

    @property
    def mean(self) -> Tensor:
        """Return x̄."""
        return torch.as_tensor(generator(self.seed, "mean").normal(size=self.size))

    def inputs(self, samples: int = 3) -> Inputs:
        """Return samples, each with a mask of its own, NaN in the missing slots."""
        draw = generator(self.seed, "gaussian sample")
        x, m = draw.normal(size=(samples, self.size)), draw.integers(0, 2, (samples, self.size)).astype(float)
        return Inputs(torch.as_tensor(np.where(m > 0, x, np.nan)), None, torch.as_tensor(m))

    def conditional(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return rest state and conditional mean by the textbook's block formulas, sample by sample, in numpy."""
        sigma, mean = self.covariance.numpy(), self.mean.numpy()
        assert inputs.input is not None
        assert inputs.mask is not None
        rests, guesses = [], []
        for x, m in zip(inputs.input.numpy(), inputs.mask.numpy(), strict=True):
            o, hidden = np.flatnonzero(m), np.flatnonzero(1 - m)
            rest, guess = np.zeros(self.size), x.copy()
            rest[o] = np.linalg.solve(sigma[np.ix_(o, o)], x[o] - mean[o])
            guess[hidden] = mean[hidden] + sigma[np.ix_(hidden, o)] @ rest[o]
            rests.append(rest)
            guesses.append(guess)
        return torch.as_tensor(np.array(rests)), torch.as_tensor(np.array(guesses))


def gaussians() -> st.SearchStrategy[Gaussian]:
    """Draw Gaussians with eigenvalues between 0.2 and 1.8."""
    return st.builds(Gaussian, st.integers(0, 10**6), st.integers(1, 6))


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic field with the running one, with S of no symmetry and soft masks."""
    s = sp.Matrix(3, 3, lambda i, j: sp.Symbol(f"s{i}{j}"))
    columns = [sp.Matrix(3, 1, lambda i, _, name=name: sp.Symbol(f"{name}{i}")) for name in ("r", "m", "x", "h")]
    symbolic = sp.lambdify([*s, *(each for column in columns for each in column)], list(symbolic_field(s, *columns)))
    gaps = []
    for case in range(20):
        draw = generator(case, "neumiss bridge")
        coupling, mean, x, h = (draw.normal(size=shape) for shape in ((3, 3), 3, 3, 3))
        m = draw.uniform(size=3) if case % 2 else draw.integers(0, 2, 3).astype(float)
        flow = NeuMissFlow(torch.as_tensor(coupling), torch.as_tensor(mean))
        inputs = Inputs(torch.as_tensor(x[None]), None, torch.as_tensor(m[None]))
        found = flow.vector_field(0.0, torch.as_tensor(h[None]), inputs)[0].numpy()
        gaps.append(float(np.abs(found - np.array(symbolic(*coupling.flatten(), *mean, *m, *x, *h))).max()))
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic field = running field",
        judge(worst <= 1e-14),  # ten roundings of numbers below 5
        "difference ≤ 1e-14; any S, hard and soft masks",
        f"{worst:.2g} over {len(gaps)} cases",
    )


def flow_property(effort: Effort) -> Evidence:
    """The loop to rest, and the linear solve, against block formulas."""

    def error_of(case: Gaussian) -> float:
        flow, inputs = gaussian_conditioning(case.covariance, case.mean), case.inputs()
        rest, guess = case.conditional(inputs)
        start = flow.initial_state(inputs)
        settled = run(flow, Constant(inputs), start, RK4, 0.5, 170.0)[-1].state
        solved = flow.equilibrium(inputs)
        pairs = [(settled, rest), (solved, rest)]
        pairs += [(flow.completed(h, inputs), guess) for h in (settled, solved)]
        return float(np.max([float((one - other).abs().max()) for one, other in pairs]))

    return check_property(
        "flow at rest = Σ_oo⁻¹(x_o − x̄_o), completed = conditional mean",
        # e^(−0.2 · 170) = 2e-15 of a gap below 50; solves lose the condition of 9
        "≤ 1e-12 from the loop (RK4) and from the linear solve; NaN in the slots, p from 1 to 6",
        Effort(max(1, effort.examples // 2), effort.is_random),
        gaussians(),
        error_of,
        1e-12,
    )


def iterate(flow: NeuMissFlow, inputs: Inputs, count: int) -> Tensor:
    """Return h after so many iterations h ← m ⊙ (S h) + m ⊙ (x − x̄), written out."""
    assert inputs.input is not None
    assert inputs.mask is not None
    seen = torch.where(inputs.mask > 0, inputs.input - flow.mean, 0.0)
    h = seen
    for _ in range(count):
        h = inputs.mask * (h @ flow.coupling.mT) + seen
    return h


def iteration_property(effort: Effort) -> Evidence:
    """Explicit Euler with unit steps is the iteration, and converges where λ_max(Σ_oo) < 2."""

    def error_of(case: Gaussian) -> float:
        flow, inputs = gaussian_conditioning(case.covariance, case.mean), case.inputs()
        start = flow.initial_state(inputs)
        few = EXPLICIT_EULER.advance(flow, Held(inputs), start, 0.0, 1.0, 7) - iterate(flow, inputs, 7)
        many = EXPLICIT_EULER.advance(flow, Held(inputs), start, 0.0, 1.0, 200) - case.conditional(inputs)[0]
        return float(torch.cat([few, many]).abs().max())

    return check_property(
        "explicit Euler with c·dt = 1 = iteration",
        # 0.8²⁰⁰ = 4e-20 of a gap below 50
        "7 steps equal to 7 iterations, 200 steps at rest, ≤ 1e-12; eigenvalues of Σ between 0.2 and 1.8",
        Effort(effort.examples, effort.is_random),
        gaussians(),
        error_of,
        1e-12,
    )


def large_eigenvalue_control(effort: Effort) -> Evidence:
    """With λ_max(Σ_oo) > 2 the iteration diverges and the flow does not; with S = 0 nothing is inferred."""
    case = Gaussian(3, 4, high=2.3)
    flow = gaussian_conditioning(case.covariance, case.mean)
    inputs = Inputs(torch.as_tensor(generator(3, "complete").normal(size=(2, 4))), None, torch.ones(4).double())
    rest = case.conditional(replace(inputs, mask=torch.ones(2, 4).double()))[0]
    blown = float((EXPLICIT_EULER.advance(flow, Held(inputs), 0 * rest, 0.0, 1.0, 100) - rest).norm())
    settled = float((run(flow, Constant(inputs), 0 * rest, RK4, 0.5, 170.0)[-1].state - rest).abs().max())
    short = float((EXPLICIT_EULER.advance(flow, Held(inputs), 0 * rest, 0.0, 0.5, 400) - rest).abs().max())
    blind, seen = NeuMissFlow(torch.zeros(4, 4).double(), case.mean), case.inputs()
    guess = case.conditional(seen)[1]
    missed = float((blind.completed(blind.equilibrium(seen), seen) - guess).abs().max())
    return Evidence(
        Leg.CONTROL,
        "λ_max(Σ) = 2.3; S = 0",
        judge(blown >= 1e8 and settled <= 1e-12 and short <= 1e-12 and missed >= 0.1),  # 1.3¹⁰⁰ = 2e11
        "iteration off by ≥ 1e8 after 100 steps; flow, and Euler with c·dt = ½, at rest to 1e-12; without S the "
        "missing ones are off by ≥ 0.1",
        f"{blown:.1e}; {settled:.1e}, {short:.1e}; {missed:.2f}",
    )


NEUMISS_EQUILIBRIUM = Theorem(
    key="masked.neumiss-equilibrium",
    title="A masked leaky network that rests at the conditional Gaussian mean",
    statement=(
        "ḣ = −h + m ⊙ (S h) + m ⊙ (x − x̄) with S = I − Σ rests at h_o = Σ_oo⁻¹(x_o − x̄_o), h_mis = 0, which attracts "
        "where Σ_oo ≻ 0; x̄_mis + Σ_mis,o h_o is E[x_mis | x_o] of a Gaussian. The NeuMiss iteration is explicit Euler "
        "with step 1 and converges iff also λ_max(Σ_oo) < 2."
    ),
    hypotheses=("Σ_oo positive definite", "mask held"),
    source="Le Morvan et al., NeurIPS 2020 (iteration); flow derived here",
    about=(NeuMissFlow, gaussian_conditioning),
    checks=(prove_rest, bridge_field, flow_property, iteration_property, large_eigenvalue_control),
)
