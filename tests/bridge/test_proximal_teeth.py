"""Teeth of the theorems on implicit steps: break the running code, one term at a time; the named checks must see it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.teeth import Check, Damage, Patch, assert_seen

from nlsim.systems.inference import batch, closed_form, energy, implicit_step, linear, proximal
from nlsim.theorems.inference import (
    deep_linear,
    implicit_sgd,
    linear_numbers,
    minimum_norm,
    proximal_variants,
    single_plastic,
    step_limits,
)

Problem = proximal.ProximalProblem


def scale_update(patch: Patch) -> None:
    original = Problem.update
    patch.setattr(
        Problem,
        "update",
        lambda self, weights, x, h: tuple(
            w + 1.01 * (v - w) for w, v in zip(weights, original(self, weights, x, h), strict=True)
        ),
    )


def hold_normalisers(patch: Patch) -> None:
    """Do not differentiate the precisions: plain inference."""
    original = proximal.normalisers
    patch.setattr(proximal, "normalisers", lambda network, made: tuple(n.detach() for n in original(network, made)))


def forget_bias(patch: Patch) -> None:
    for module in (energy, minimum_norm):
        patch.setattr(module, "normaliser", lambda network, a: a.square().sum(-1, keepdim=True))


def forget_penalty_in_step(patch: Patch) -> None:
    original = Problem.update
    patch.setattr(Problem, "update", lambda self, *given: original(replace(self, penalty=0.0), *given))


def shift_tails(patch: Patch) -> None:
    original = linear.tails
    patch.setattr(linear, "tails", lambda network, w: tuple(1.001 * t for t in original(network, w)))


def drop_upper_block(patch: Patch) -> None:
    original = linear.inference_hessian
    for module in (linear, deep_linear):
        patch.setattr(module, "inference_hessian", lambda *given: torch.tril(original(*given)))


def drop_bias_above(patch: Patch) -> None:
    original = linear.settle_hidden
    patch.setattr(
        deep_linear, "settle_hidden", lambda net, w, x, y, g: original(net, (*w[:-1], 1.001 * w[-1]), x, y, g)
    )


def halve_gram_step(patch: Patch) -> None:
    original = batch.gram_update
    for module in (batch, proximal_variants):
        patch.setattr(
            module,
            "gram_update",
            lambda network, w, x, h: tuple(
                a + 0.99 * (b - a) for a, b in zip(w, original(network, w, x, h), strict=True)
            ),
        )


def never_refuse(patch: Patch) -> None:
    patch.setattr(batch, "largest_batch", lambda network, given: 10**6)
    patch.setattr(proximal_variants, "largest_batch", lambda network, given: 10**6)


def wrong_dual_rate(patch: Patch) -> None:
    original = batch.solve_by_duals
    patch.setattr(
        proximal_variants, "solve_by_duals", lambda p, *given: original(replace(p, rate=1.001 * p.rates[0]), *given)
    )


def forget_shrinkage(patch: Patch) -> None:
    original = closed_form.linear_step
    patch.setattr(step_limits, "linear_step", lambda w, a, y, rate: original(w, a, y, 1.001 * rate))


def probability_target(patch: Patch) -> None:
    patch.setattr(step_limits, "cross_entropy_target", lambda p, n, z: p + n / (1 + n) * (z - torch.softmax(p, -1)))


def stop_early(patch: Patch) -> None:
    original = implicit_step.minimise
    for module in (implicit_step, single_plastic):
        patch.setattr(module, "minimise", lambda f, start, **_: original(f, start, max_iterations=2))


def clamp_scaled(patch: Patch) -> None:
    original = linear.hard_clamp
    patch.setattr(step_limits, "hard_clamp", lambda *g: replace(original(*g), energy=1.001 * original(*g).energy))


def clamp_wrong_energy(patch: Patch) -> None:
    for name in ("hard_clamp", "soft_clamp"):
        original = getattr(linear, name)
        patch.setattr(linear_numbers, name, lambda *g, of=original: replace(of(*g), energy=1.001 * of(*g).energy))


BREAKS = [
    (scale_update, implicit_sgd.certificates),
    (scale_update, implicit_sgd.bridge_energy),
    (scale_update, step_limits.interpolation_order),
    (hold_normalisers, implicit_sgd.certificates),
    (hold_normalisers, implicit_sgd.bridge_energy),
    (hold_normalisers, proximal_variants.penalties),
    (forget_bias, minimum_norm.realisation),
    (forget_bias, minimum_norm.bridge_update),
    (forget_penalty_in_step, proximal_variants.penalties),
    (forget_penalty_in_step, proximal_variants.bridge_penalty),
    (shift_tails, deep_linear.bridge_soft),
    (shift_tails, deep_linear.soft_property),
    (shift_tails, deep_linear.hard_property),
    (shift_tails, deep_linear.bridge_kernel),
    (shift_tails, deep_linear.kernel_property),
    (drop_upper_block, deep_linear.hard_property),
    (drop_bias_above, deep_linear.hard_property),
    (clamp_wrong_energy, deep_linear.bridge_hard),
    (clamp_wrong_energy, deep_linear.bridge_soft),
    (halve_gram_step, proximal_variants.batches),
    (halve_gram_step, proximal_variants.bridge_gram),
    (never_refuse, proximal_variants.crowd_control),
    (wrong_dual_rate, proximal_variants.duals),
    (forget_shrinkage, step_limits.contraction),
    (forget_shrinkage, step_limits.bridge_linear_step),
    (probability_target, step_limits.contraction),
    (stop_early, implicit_sgd.certificates),
    (stop_early, implicit_sgd.two_ways),
    (stop_early, single_plastic.one_plastic_layer),
    (clamp_scaled, step_limits.bridge_strict_saddle),
    (clamp_scaled, step_limits.origin),
]


@pytest.mark.parametrize(("damage", "check"), BREAKS, ids=lambda each: each.__name__)
def test_damage_is_seen(damage: Damage, check: Check, monkeypatch: Patch) -> None:
    assert_seen(damage, check, monkeypatch, 4)
