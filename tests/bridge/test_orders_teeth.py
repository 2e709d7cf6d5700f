"""Teeth of the theorems on the running step: damage to what runs is seen by the named checks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.teeth import Check, Damage, Patch, assert_seen

from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.precision import StepPrecision
from nlsim.systems.inference.update import NormalisedLeastMeanSquares
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.evidence import Finding
from nlsim.theorems.inference import anti_decay, error_orders, field_algebra, imex, order_algebra, realisation, running
from nlsim.theorems.statement import Effort


def weaken_anti_decay(patch: Patch) -> None:
    original = StepPrecision.anti_decay

    def weaker(self: StepPrecision, gamma: object, n: torch.Tensor) -> torch.Tensor | None:
        right = original(self, gamma, n)
        return None if right is None else 0.99 * right

    patch.setattr(StepPrecision, "anti_decay", weaker)


def scale_precisions(patch: Patch) -> None:
    original = StepPrecision.values
    patch.setattr(StepPrecision, "values", lambda self, n, before: tuple(1.01 * g for g in original(self, n, before)))


def weaken_feedback(patch: Patch) -> None:
    original = ActivityFlow.couplings

    def weaker(self: ActivityFlow, *given: object) -> tuple:
        own, feed, restore, decay = original(self, *given)
        return own, 0.99 * feed, restore, decay

    patch.setattr(ActivityFlow, "couplings", weaker)


def shorten_jump(patch: Patch) -> None:
    original = NormalisedLeastMeanSquares.apply
    patch.setattr(NormalisedLeastMeanSquares, "apply", lambda self, *given: original(replace(self, rate=0.999), *given))


def forget_bias(patch: Patch) -> None:
    original = LayeredNetwork.accumulate_gradient_

    def without(self: LayeredNetwork, total: torch.Tensor, *given: torch.Tensor, keep: float, add: float) -> None:
        kept = total[..., -1].clone()
        original(self, total, *given, keep=keep, add=add)
        if self.has_bias:
            total[..., -1] = kept

    patch.setattr(LayeredNetwork, "accumulate_gradient_", without)


def stop_early(patch: Patch) -> None:
    original = running.find_rest

    def early(*given: object) -> object:
        return original(*given, tolerance=10.0, max_iterations=1)

    patch.setattr(running, "find_rest", early)


def gains_of_exact(patch: Patch) -> None:
    """Let the equal rule be the exact one."""
    original = error_orders.StepPrecision
    patch.setattr(error_orders, "StepPrecision", lambda rate, kind: original(rate, "exact"))


def implicit_for_explicit(patch: Patch) -> None:
    patch.setattr(error_orders, "explicit_step", error_orders.linearly_implicit_step)


BREAKS = [
    (weaken_anti_decay, anti_decay.fields),
    (weaken_anti_decay, anti_decay.sign_control),
    (weaken_anti_decay, field_algebra.bridge_field),
    (weaken_anti_decay, order_algebra.bridge_orders),
    (scale_precisions, imex.imex_residuals),
    (scale_precisions, anti_decay.euler_order),
    (scale_precisions, field_algebra.bridge_field),
    (scale_precisions, error_orders.rate_order),
    (weaken_feedback, imex.imex_residuals),
    (weaken_feedback, imex.defect_order),
    (weaken_feedback, error_orders.residual_order),
    (weaken_feedback, error_orders.rate_order),
    (weaken_feedback, anti_decay.fields),
    (shorten_jump, realisation.realised),
    (shorten_jump, realisation.bridge_jump),
    (shorten_jump, realisation.epsilon_order),
    (shorten_jump, realisation.normaliser_control),
    (shorten_jump, imex.imex_residuals),
    (forget_bias, realisation.realised),
    (forget_bias, realisation.bridge_jump),
    (gains_of_exact, error_orders.equal_gains_control),
    (gains_of_exact, error_orders.large_rate_order),
    (gains_of_exact, error_orders.residual_order),
    (implicit_for_explicit, error_orders.explicit_control),
]


@pytest.mark.parametrize(("damage", "check"), BREAKS, ids=lambda each: each.__name__)
def test_damage_is_seen(damage: Damage, check: Check, monkeypatch: Patch) -> None:
    assert_seen(damage, check, monkeypatch, 8)


def test_a_step_that_has_not_settled_is_seen(monkeypatch: Patch) -> None:
    stop_early(monkeypatch)
    with torch.no_grad():
        assert error_orders.rate_order(Effort()).finding is Finding.FAILED
