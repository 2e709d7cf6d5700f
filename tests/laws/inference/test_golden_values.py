"""T24: the scalar net h = w₂ w₁ x of one hidden neuron, to 16 digits by arithmetic of 40."""

from __future__ import annotations

import mpmath
import pytest
import torch

from nlsim.systems.activation import IDENTITY
from nlsim.systems.inference.implicit_step import solve_in_activities, solve_in_weights
from nlsim.systems.inference.linear import soft_clamp
from nlsim.systems.inference.proximal import ProximalProblem
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork

NET = LayeredNetwork((1, 1, 1), (IDENTITY,) * 2, has_bias=False)
FIRST, SECOND = (1, "0.5", "0.8", 1, 1), (2, "0.5", "0.8", 1, "0.5")

# (x, w₁, w₂, y, α) -> rule -> (w₁', w₂', J), as printed in the specification
GOLDEN = {
    FIRST: {
        "implicit": ("0.7521594236562096", "0.9913240116608969", "0.0824457341712"),
        "self-consistent": ("0.7220785468758581", "1.000447693025527", "0.0832794550784"),
        "feedforward-frozen": ("0.753968253968254", "0.9052631578947368", "0.0881806297978"),
        "equal": ("0.5851063829787234", "0.9818181818181818", "0.110689179128"),
        "explicit": ("0.98", "1.1", "0.163242"),
    },
    SECOND: {
        "implicit": ("0.5565994704235683", "0.8376108262646304", "0.00690109672058"),
        "self-consistent": ("0.5552376019858897", "0.8383374920826205", "0.00690470024824"),
        "feedforward-frozen": ("0.5575539568345324", "0.832258064516129", "0.00694089844497"),
        "equal": ("0.521978021978022", "0.8526315789473684", "0.00929103467839"),
        "explicit": ("0.66", "0.9", "0.053272"),
    },
}


def tensors(case):
    x, w1, w2, y, alpha = (float(each) for each in case)
    one = [torch.full((1, 1), each, dtype=torch.float64) for each in (x, w1, w2, y)]
    return one[0], (one[1], one[2]), one[3], alpha


def objective(case, w1, w2):
    x, a, b, y, alpha = (mpmath.mpf(each) for each in case)
    return (w2 * w1 * x - y) ** 2 / 2 + ((w1 - a) ** 2 + (w2 - b) ** 2) / (2 * alpha)


def reference(case, rule):
    """Return (w₁', w₂') by the rule's own equations, in 40 digits."""
    x, a, b, y, alpha = (mpmath.mpf(each) for each in case)
    if rule == "explicit":
        slope = b * a * x - y
        return a - alpha * slope * b * x, b - alpha * slope * a * x
    if rule == "implicit":
        start = [mpmath.mpf(each) for each in GOLDEN[case][rule][:2]]
        return tuple(
            mpmath.findroot(
                lambda u, v: [u - a + alpha * (v * u * x - y) * v * x, v - b + alpha * (v * u * x - y) * u * x], start
            )
        )
    h, n1 = a * x, x**2

    def rest(hidden, output):
        n = {"self-consistent": (n1, hidden**2), "feedforward-frozen": (n1, h**2), "equal": (h**2, h**2)}[rule]
        gamma = [1 / (alpha * each) for each in n]
        e1, e2 = hidden - h, output - b * hidden
        return [-gamma[0] * e1 + gamma[1] * b * e2, -gamma[1] * e2 + y - output]

    # the starts lie in the basin of the root that is reached from the feedforward state
    hidden, output = mpmath.findroot(rest, [h * mpmath.mpf("1.3"), (y + b * h) / 2])
    return a + (hidden - h) / x, b + (output - b * hidden) / hidden


@pytest.mark.parametrize("rule", ["implicit", "self-consistent", "feedforward-frozen", "equal", "explicit"])
@pytest.mark.parametrize("case", [FIRST, SECOND])
def test_table_is_reproduced_in_forty_digits(case, rule):
    """T24: what is printed follows from the equations of each rule (J is printed to 12 digits)."""
    with mpmath.workdps(40):
        w1, w2 = reference(case, rule)
        printed = [mpmath.mpf(each) for each in GOLDEN[case][rule]]
        assert abs(w1 - printed[0]) <= 1e-15
        assert abs(w2 - printed[1]) <= 1e-15
        assert abs(objective(case, w1, w2) - printed[2]) <= 1e-12 * 0.5 + 1e-13


@pytest.mark.parametrize("solve", [solve_in_activities, solve_in_weights])
@pytest.mark.parametrize("case", [FIRST, SECOND])
def test_implicit_step_has_the_golden_digits(case, solve):
    """T24: both solvers; ten operations on numbers below 2 round by less than 1e-14, curvatures are above 0.3."""
    given, weights, target, alpha = tensors(case)
    step = solve(ProximalProblem(NET, SQUARED_ERROR, alpha), weights, given, target)
    expected = GOLDEN[case]["implicit"]
    assert step.is_solved
    for found, printed in zip(step.weights, expected, strict=False):
        assert abs(float(found) - float(printed)) <= 1e-13
    value = ProximalProblem(NET, SQUARED_ERROR, alpha).objective(weights, step.weights, given, target)
    assert abs(float(value) - float(expected[2])) <= 6e-13  # as many digits as are printed


@pytest.mark.parametrize("case", [FIRST, SECOND])
@pytest.mark.parametrize("rule", ["feedforward-frozen", "equal"])
def test_constant_precisions_have_the_golden_digits(case, rule):
    """T24: the closed form of deep linear nets, then the normalised step."""
    given, weights, target, alpha = tensors(case)
    h = float(weights[0] * given)
    normalisers = (float(given) ** 2, h**2) if rule == "feedforward-frozen" else (h**2, h**2)
    rest = soft_clamp(NET, weights, given, target, tuple(1 / (alpha * n) for n in normalisers))
    new = ProximalProblem(NET, SQUARED_ERROR, alpha).update(weights, given, rest.activity)
    for found, printed in zip(new, GOLDEN[case][rule], strict=False):
        assert abs(float(found) - float(printed)) <= 1e-13
