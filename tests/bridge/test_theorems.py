"""Every check of every theorem passes, and the theorems have teeth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

from nlsim.systems import backprop
from nlsim.systems.hamiltonian import learning, problem
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.catalogue import THEOREMS
from nlsim.theorems.evidence import Evidence, Finding, Leg, Verdict, judge, verdict
from nlsim.theorems.hamiltonian import backprop_numbers, momentum_limit
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort
from nlsim.theorems.verify import choose, look

Check = Callable[[Effort], Evidence]
# a check that speaks for several theorems is run once
FIRST = {check: key for key, theorem in reversed(THEOREMS.items()) for check in theorem.checks}
CHECKS = [pytest.param(check, id=f"{key}:{check.__name__}") for check, key in FIRST.items()]


@pytest.mark.parametrize("check", CHECKS)
def test_check_passes(check: Check) -> None:
    with torch.no_grad():
        evidence = check(Effort())
    assert evidence.finding is Finding.PASSED, f"{evidence.name}: expected {evidence.expected}; {evidence.measured}"
    assert evidence.expected
    assert evidence.measured


def test_a_check_that_comes_to_no_end_has_failed_and_lets_the_others_speak() -> None:
    def prove_nothing(effort: Effort) -> Evidence:
        return judge_division(1.0 / (effort.examples - 50))

    theorem = THEOREMS["masked.additivity"]
    broken = replace(theorem, checks=(prove_nothing, *theorem.checks))
    with torch.no_grad():
        evidence = [look(check, Effort()) for check in broken.checks]
    assert (evidence[0].leg, evidence[0].finding) == (Leg.PROOF, Finding.FAILED)
    assert "ZeroDivisionError" in evidence[0].measured
    assert verdict(evidence) is Verdict.FAILED
    assert all(each.finding is Finding.PASSED for each in evidence[1:])


def judge_division(value: float) -> Evidence:
    return Evidence(Leg.PROOF, "division", judge(value > 0), "> 0", str(value))


@pytest.mark.parametrize("key", ["hamiltonian.backprop-limit", "hamiltonian.momentum-limit"])
def test_the_first_theorems_stand_on_every_leg(key: str) -> None:
    names = {check.__name__ for check in THEOREMS[key].checks}
    assert any(name.startswith("prove") for name in names)
    assert any(name.startswith("bridge") for name in names)
    assert any(name.endswith("order") for name in names)
    assert any(name.endswith("control") for name in names)


# --- teeth: break the running code, one term at a time; the named checks must see it ------------------------------


def without_pull_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LayeredNetwork, "pull_back", lambda self, w, q: 0 * (q @ (w[..., :-1] if self.has_bias else w)))


def without_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    original = problem.partials

    def straight(of: problem.LearningProblem, state: problem.LearningState, inputs: object) -> problem.Partials:
        linear = tuple(replace(each, slope=lambda a, y: torch.ones_like(a)) for each in of.network.activations)
        return original(replace(of, network=replace(of.network, activations=linear)), state, inputs)

    monkeypatch.setattr(learning, "partials", straight)


def without_dissipation(monkeypatch: pytest.MonkeyPatch) -> None:
    original = learning._assemble
    monkeypatch.setattr(
        learning,
        "_assemble",
        lambda of, state, inputs, sign: original(replace(of, dissipation=0.0), state, inputs, sign),
    )


def without_regulariser(monkeypatch: pytest.MonkeyPatch) -> None:
    original = learning.partials
    monkeypatch.setattr(
        learning, "partials", lambda of, state, inputs: original(replace(of, regularisation=0.0), state, inputs)
    )


def without_reversal(monkeypatch: pytest.MonkeyPatch) -> None:
    original = learning._assemble
    monkeypatch.setattr(learning, "_assemble", lambda of, state, inputs, sign: original(of, state, inputs, 1))


def without_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    original = learning.partials

    def leakless(of: problem.LearningProblem, state: problem.LearningState, inputs: object) -> problem.Partials:
        parts = original(of, state, inputs)
        rate = tuple(f + c * x for f, c, x in zip(parts.rate, of.speed, state.activity, strict=True))
        return replace(parts, rate=rate)

    monkeypatch.setattr(learning, "partials", leakless)


BREAKS = [
    without_pull_back,
    without_slope,
    without_dissipation,
    without_regulariser,
    without_reversal,
    without_leak,
]


@pytest.mark.parametrize("damage", BREAKS)
def test_a_missing_term_breaks_the_bridge(damage: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(monkeypatch)
    with torch.no_grad():
        assert backprop_numbers.bridge_field(Effort()).finding is Finding.FAILED


def test_a_simultaneous_sweep_breaks_asymptotic_preservation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sweep read the old activities of the layer before: unit delays, not backpropagation."""
    original = learning.CostateReversal.sweep_

    def delayed(self: learning.CostateReversal, t: float, state: object, inputs: object, dt: float, f: object) -> None:
        before = tuple(x.clone() for x in state.activity)
        original(self, t, state, inputs, dt, f)
        source = inputs.input
        for x, old, weight, each in zip(
            state.activity, before, state.weight, self.problem.network.activations, strict=True
        ):
            x.copy_(each.value(self.problem.network.pre_activation(weight, source)))
            source = old

    monkeypatch.setattr(learning.CostateReversal, "sweep_", delayed)
    with torch.no_grad():
        assert backprop_numbers.stepper_table(Effort()).finding is Finding.FAILED


def test_momentum_applied_to_the_force_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale the force by the momentum too (dampening): no longer torch's SGD."""
    original = backprop.HeavyBall.force
    monkeypatch.setattr(
        backprop.HeavyBall,
        "force",
        lambda self, w, u: tuple((1 - 0.01 * self.dissipation) * f for f in original(self, w, u)),
    )
    with torch.no_grad():
        assert momentum_limit.equals_sgd(Effort()).finding is Finding.FAILED


# --- the machinery ---------------------------------------------------------------------------------------------


def found(leg: Leg, finding: Finding) -> Evidence:
    return Evidence(leg, "", finding, "", "")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([(Leg.PROOF, Finding.PASSED), (Leg.BRIDGE, Finding.PASSED)], Verdict.PROVED),
        ([(Leg.PROOF, Finding.PASSED), (Leg.PROPERTY, Finding.PASSED)], Verdict.HOLDS),
        ([(Leg.PROPERTY, Finding.PASSED)], Verdict.HOLDS),
        ([(Leg.PROOF, Finding.UNDECIDED), (Leg.BRIDGE, Finding.PASSED)], Verdict.UNDECIDED),
        ([(Leg.PROOF, Finding.PASSED), (Leg.COUNTEREXAMPLE, Finding.PASSED)], Verdict.REFUTED),
        ([(Leg.COUNTEREXAMPLE, Finding.FAILED)], Verdict.FAILED),
        ([(Leg.PROOF, Finding.UNDECIDED), (Leg.CONTROL, Finding.FAILED)], Verdict.FAILED),
        ([], Verdict.UNDECIDED),
    ],
)
def test_verdict(evidence: list[tuple[Leg, Finding]], expected: Verdict) -> None:
    assert verdict(found(*each) for each in evidence) is expected


def test_dont_know_is_no_pass() -> None:
    assert judge(None) is Finding.UNDECIDED
    assert not Verdict.UNDECIDED.is_good
    assert not Verdict.FAILED.is_good


def test_property_reports_the_smallest_counterexample() -> None:
    evidence = check_property("below 17", "", Effort(200), st.integers(0, 1000), float, 16.0)
    assert evidence.finding is Finding.FAILED
    assert evidence.measured == "error 17 at 17"


def test_property_fails_on_nan() -> None:
    assert check_property("", "", Effort(5), st.just(1), lambda _: float("nan"), 1.0).finding is Finding.FAILED


def test_property_counts_its_cases() -> None:
    seen: list[int] = []
    evidence = check_property("", "", Effort(30), st.integers(), lambda n: seen.append(n) or 0.0, 1.0)
    assert len(seen) == 30
    assert "30 random cases" in evidence.measured


def test_effort_decides_whether_cases_repeat() -> None:
    def draw(effort: Effort) -> list[int]:
        seen: list[int] = []
        check_property("", "", effort, st.integers(), lambda n: seen.append(n) or 0.0, 1.0)
        return seen

    assert draw(Effort(20)) == draw(Effort(20))
    assert draw(Effort(20, is_random=True)) != draw(Effort(20, is_random=True))


def test_theorems_can_be_chosen() -> None:
    assert [each.key for each in choose(["hamiltonian.momentum-limit"], None)] == ["hamiltonian.momentum-limit"]
    assert {each.key for each in choose([], "hamiltonian")} == {k for k in THEOREMS if k.startswith("hamiltonian.")}
    assert len(choose([], None)) == len(THEOREMS)
