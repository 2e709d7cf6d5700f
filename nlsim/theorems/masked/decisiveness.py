"""masked.decisiveness: less is known, less is decided: true on average under conditions, false case by case."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from nlsim.analysis.decisiveness import both_classes, mean_confidence, mean_distance_from_half, normalised_entropy
from nlsim.core.randomness import generator
from nlsim.systems.masked.layer import masked_affine
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.masked.neuron import control, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Expression, Symbol

CASES, INPUTS = 100_000, 8


def pre_activation(contributions: Tensor, mask: Tensor, bias: float = 0.8) -> Tensor:
    """Return a of a running neuron whose inputs make these contributions: w = 1, x_j = c_j − b/p."""
    p = contributions.shape[-1]
    one = torch.ones(1, p, dtype=torch.float64)
    return masked_affine(contributions - bias / p, mask, one, one[0, :1] * bias)[..., 0]


def gaussian() -> Tensor:
    """Return independent standard normal contributions, shape ``(case, input)``."""
    return torch.as_tensor(generator(0, "contributions").normal(size=(CASES, INPUTS)))


def first(k: int, like: Tensor) -> Tensor:
    """Return the mask of the first k inputs."""
    return (torch.arange(like.shape[-1]) < k).expand(like.shape)


def wedge() -> tuple[Symbol, Symbol, Expression]:
    """Return k, r = p − k, and the angle arctan(2 √(k/r)): where |a| grows when r more inputs go missing."""
    k, r = sp.symbols("k r", positive=True)
    return k, r, sp.atan(2 * sp.sqrt(k / r))


def bolder(k: int) -> float:
    """Return the chance that k of the inputs speak louder than all of them."""
    seen, missing, angle = wedge()
    return float((angle / sp.pi).subs({seen: k, missing: INPUTS - k}))


def bolder_by_quadrature(k: int) -> float:
    """Return the same chance as E_X P(−2|X| < Y sign X < 0), X of variance k and Y of variance p − k."""
    from scipy.integrate import quad  # type: ignore[import-untyped, unused-ignore]
    from scipy.special import ndtr  # type: ignore[import-untyped, unused-ignore]

    ratio = 2 * math.sqrt(k / (INPUTS - k))

    def integrand(u: float) -> float:
        return float(0.5 - ndtr(-ratio * u)) * math.exp(-u * u / 2) * math.sqrt(2 / math.pi)

    # beyond 12 deviations there is less than 1e-32
    return float(quad(integrand, 0.0, 12.0, epsabs=1e-12)[0])


def prove_law(effort: Effort) -> Evidence:
    """X seen, Y unseen, |X| > |X + Y| ⇔ Y (2X + Y) < 0: a wedge of the plane, whose angle is arctan(2 √(k/(p−k))).

    Divided by their deviations X and Y have a density that depends on the distance from the origin alone, so the
    chance of a double wedge is its angle by π. Y (2X + Y) is a product of two functions of the angle t that vanish
    once in a half-turn each.
    """
    k, r, edge = wedge()
    x, y, t = sp.symbols("x y t", real=True)
    theta = sp.Symbol("theta", positive=True)
    differences = [x**2 - (x + y) ** 2 + y * (2 * x + y)]
    other = 2 * sp.sqrt(k) * sp.cos(t) + sp.sqrt(r) * sp.sin(t)
    differences.append(sp.simplify(other.subs(t, -edge)))
    # in the middle of the wedge from −θ to 0, tan θ = 2 √(k/r), the product is −√r sin²(θ/2)/cos θ < 0
    middle = (sp.sin(t) * (sp.sqrt(r) * sp.tan(theta) * sp.cos(t) + sp.sqrt(r) * sp.sin(t))).subs(t, -theta / 2)
    differences.append(sp.trigsimp(middle + sp.sqrt(r) * sp.sin(theta / 2) ** 2 / sp.cos(theta)))
    # the deviation of k seen Gaussian contributions grows, and with it the mean of |a|
    density = sp.exp(-(x**2) / (2 * k)) / sp.sqrt(2 * sp.pi * k)
    differences.append(2 * sp.integrate(x * density, (x, 0, sp.oo)) - sp.sqrt(2 * k / sp.pi))
    return prove(
        "P(|a| grows) = arctan(2 √(k/(p − k)))/π; E|a| = √(2k/π)", "Gaussian contributions, k of p seen", differences
    )


def convex_measures(effort: Effort) -> Evidence:
    """Reveal inputs one by one: E|a| and E a⁴ never fall, exactly, over all outcomes of two-valued contributions."""

    def error_of(case: tuple[list[float], list[float], float]) -> float:
        ups, chances, bias = case
        # c = up with chance q, −up q/(1 − q) else: centred
        values = [(up, -up * q / (1 - q)) for up, q in zip(ups, chances, strict=True)]
        outcomes = torch.tensor(list(itertools.product(*values)), dtype=torch.float64)
        each = itertools.product(*((q, 1 - q) for q in chances))
        weights = torch.tensor([math.prod(row) for row in each], dtype=torch.float64)
        worst = 0.0
        for measure in (torch.abs, lambda a: a**4):
            means = list[float]()
            for k in range(len(ups) + 1):
                a = pre_activation(outcomes, first(k, outcomes), bias)
                means.append(float((weights * measure(a)).sum()))
                # the mean of what is seen alone, without a layer: 0 for nothing
                known = float((weights * measure(outcomes[:, :k].sum(-1))).sum())
                scale = float((weights * measure(outcomes.abs().sum(-1) + abs(bias))).sum())
                worst = float(np.maximum(worst, abs(means[-1] - known) / scale))
            if means[0] != 0.0:
                return math.inf
            falls = -np.diff(means)
            worst = float(np.maximum(worst, float(falls.max()) / max(means)))
        return worst

    cases = st.integers(1, 6).flatmap(
        lambda p: st.tuples(
            st.lists(st.floats(0.1, 3.0), min_size=p, max_size=p),
            st.lists(st.floats(0.1, 0.9), min_size=p, max_size=p),
            st.floats(-2.0, 2.0),
        )
    )
    tolerance = 1e-12  # fourth powers of sums of six numbers below 27, each rounded; relative to the largest mean
    return check_property(
        "E|a| and E a⁴ as inputs are revealed",
        f"a = 0 when nothing is seen, then no fall beyond {tolerance:g}; means of what is seen alone, to as much",
        effort,
        cases,
        error_of,
        tolerance,
    )


def gaussian_measures(effort: Effort) -> Evidence:
    """Confidence rises and entropy falls with k of 8 seen, as quadrature says, within five standard errors.

    Layer and measures are held to round-off, case by case and on the same draws; what is left to chance is the law.
    """
    contributions = gaussian()
    rows, scores, means, gap = [], [], [], 0.0
    tolerance = 1e-12  # means of 100 000 terms up to 1, summed in pairs, and pre-activations of nine terms below 10
    for k in range(INPUTS + 1):
        a, known = pre_activation(contributions, first(k, contributions)), contributions[:, :k].sum(-1)
        second = torch.sigmoid(a).numpy()
        pair = both_classes(second)
        found = [float(mean_confidence(pair)), float(normalised_entropy(pair)), float(mean_distance_from_half(second))]
        sure, unsure = expectation(confidence, k), expectation(entropy, k)
        expected = [sure, unsure, sure - 0.5]
        by_hand = [float(confidence(known.numpy()).mean()), float(entropy(known.numpy()).mean())]
        apart = [abs(f - h) for f, h in zip(found, [*by_hand, by_hand[0] - 0.5], strict=True)]
        gap = float(np.max([gap, float((a - known).abs().max()), *apart]))
        errors = [float(np.std(measure(a.numpy()))) / math.sqrt(CASES) for measure in (confidence, entropy, confidence)]
        for f, e, error in zip(found, expected, errors, strict=True):
            scores.append(abs(f - e) / (error if k else 1e-12))  # nothing seen: nothing random, quadrature to 1e-12
        means.append(expected)
        rows.append((f"{k}/{INPUTS}", *(f"{f:.4f} ({e:.4f})" for f, e in zip(found, expected, strict=True))))
    steps = np.diff(np.array(means), axis=0)
    is_monotone = bool((steps[:, 0] > 0).all() and (steps[:, 1] < 0).all() and (steps[:, 2] > 0).all())
    worst = float(np.max(scores))
    return Evidence(
        Leg.PROPERTY,
        "Gaussian contributions: confidence, entropy, |p − ½|",
        judge(is_monotone and worst <= 5 and gap <= tolerance),
        "within 5 standard errors of quadrature, which is monotone; ½, 1, 0 when nothing is seen, to 5e-12; "
        f"measures of the sum of what is seen, written out, ≤ {tolerance:g}",
        f"at most {worst:.1f}; monotone: {is_monotone}; {gap:.1g}",
        (Table("mean (expected)", ("seen", "max p", "entropy", "|p − ½|"), tuple(rows)),),
    )


def confidence(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return max(p, 1 − p) of a logit."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.abs(a))))


def entropy(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy in bits of a logit."""
    p = confidence(a)
    q = 1.0 / (1.0 + np.exp(np.abs(a)))
    return np.asarray(-(p * np.log2(p) + q * np.log2(q)))


def expectation(measure: Callable[[NDArray[np.float64]], NDArray[np.float64]], k: int) -> float:
    """Return E f(a) of a normal a with variance k, by quadrature; f is even."""
    from scipy.integrate import quad  # type: ignore[import-untyped, unused-ignore]

    def integrand(u: float) -> float:
        return float(measure(np.asarray(math.sqrt(k) * u))) * math.exp(-u * u / 2) * math.sqrt(2 / math.pi)

    # beyond 12 deviations there is less than 1e-32
    return float(quad(integrand, 0.0, 12.0, epsabs=1e-12)[0])


def bolder_case_by_case(effort: Effort) -> Evidence:
    """One neuron that gets bolder, and how many do."""
    pair = torch.tensor([[3.0, -2.9]], dtype=torch.float64).expand(2, 2)
    whole, halved = pre_activation(pair, torch.tensor([[1.0, 1.0], [1.0, 0.0]])).tolist()
    contributions = gaussian()
    full = pre_activation(contributions, first(INPUTS, contributions)).abs()
    cells, is_close, gap = [], True, 0.0
    for k in (2, 4, 6):
        seen = pre_activation(contributions, first(k, contributions))
        gap = float(np.maximum(gap, float((seen - contributions[:, :k].sum(-1)).abs().max())))
        rate = float((seen.abs() > full).double().mean())
        expected = bolder(k)
        is_close &= abs(expected - bolder_by_quadrature(k)) <= 1e-11
        error = math.sqrt(expected * (1 - expected) / CASES)
        is_close &= abs(rate - expected) <= 5 * error
        cells.append(f"{k}/{INPUTS} seen: {100 * rate:.1f} % ({100 * expected:.1f} ± {100 * error:.1f})")
    return Evidence(
        Leg.COUNTEREXAMPLE,
        "'never more decided when an input is removed'",
        judge(is_close and abs(whole - 0.1) <= 1e-14 and abs(halved - 3.0) <= 1e-14 and gap <= 1e-13),
        "false: c = (3, −2.9) gives a = 0.1, without the second 3; so for arctan(2 √(k/(p − k)))/π of Gaussian "
        "cases and by quadrature, to 1e-11; each a what its seen contributions sum up to, ≤ 1e-13",
        f"{whole:.1f}, {halved:g}; " + "; ".join(cells),
    )


def saturating_control(effort: Effort) -> Evidence:
    """Contributions ±1, centred but of two values: mean |p − ½| is larger with one of two seen than with both."""
    outcomes = torch.tensor(list(itertools.product((1.0, -1.0), repeat=2)), dtype=torch.float64)
    means, sizes = [], []
    for k in (1, 2):
        a = pre_activation(outcomes, first(k, outcomes))
        means.append(float(mean_distance_from_half(torch.sigmoid(a).numpy())))
        sizes.append(float(a.abs().mean()))
    expected = math.tanh(0.5) / 2, math.tanh(1.0) / 4
    gaps = [abs(mean - each) for mean, each in zip(means, expected, strict=True)]
    off_centre = torch.tensor([[-1.0, 3.0]], dtype=torch.float64).expand(2, 2)
    fall = pre_activation(off_centre, torch.tensor([[0.0, 1.0], [1.0, 1.0]])).abs()
    return control(
        "a measure that saturates, contributions of two values; contributions that are not centred",
        max(gaps) <= 1e-15 and means[0] > means[1] and sizes[0] <= sizes[1] and bool(fall[0] > fall[1]),
        f"one of two seen {expected[0]:.3f} > both {expected[1]:.3f}, though E|a| does not fall; "
        "E|a| falls from 3 to 2 for sure contributions 3 and −1",
        f"{means[0]:.3f} > {means[1]:.3f}, E|a| {sizes[0]:g} and {sizes[1]:g}; {fall[0]:g}, {fall[1]:g}",
    )


DECISIVENESS = Theorem(
    key="masked.decisiveness",
    title="Fewer known inputs make a neuron less decided on average, not case by case",
    statement=(
        "Published: predictions get less decided as inputs go missing. False case by case: c = (3, −2.9) gives a = 0.1 "
        "complete and 3 without the second input, and with centred Gaussian contributions |a| grows with probability "
        "arctan(2 √(k/(p − k)))/π when k of p are kept: 0.273, 0.352, 0.411 for a quarter, a half, three quarters. "
        "True on average: for independent centred contributions the mean of |a|, and of every convex function of a, "
        "does not fall when an input is revealed; for Gaussian ones neither does that of any increasing function of "
        "|a|, such as confidence. With nothing seen a = 0. Measures that saturate need more than centred "
        "contributions: with c_j = ±1 mean |p − ½| is 0.231 with one of two seen and 0.190 with both."
    ),
    hypotheses=(
        "average: contributions independent and centred, for a convex measure",
        "average of confidence: Gaussian contributions",
    ),
    source="claim of Kia et al., 2022, arXiv:2206.01640 (abstract); its limits are derived here",
    about=(masked_affine, mean_confidence, normalised_entropy, mean_distance_from_half),
    checks=(prove_law, convex_measures, gaussian_measures, bolder_case_by_case, saturating_control),
)
