"""The statistical theorems about masked inputs see small damage, not only another rule.

What is exact is damaged by a part in 10⁹, what is drawn by what its five standard errors leave: a chance of being
observed by 0.004, two inputs that share their fate in every fiftieth sample.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import sympy as sp
from support.teeth import Check, Damage, Patch, assert_seen

from nlsim.core.randomness import generator
from nlsim.systems.masked import counterfactual, layer, module
from nlsim.systems.masked.mechanism import MissingEntries
from nlsim.theorems.masked import bias_inflation, compensatory_weight, decisiveness, mcar_moments, neuron, shapley

SLIGHTLY = 1 + 1e-9


def scaled(module: object, name: str, factor: float) -> Damage:
    """Multiply what a function gives."""

    def damage(patch: Patch) -> None:
        original: Callable = getattr(module, name)
        patch.setattr(module, name, lambda *a, **o: original(*a, **o) * factor)

    damage.__name__ = f"{name}_times_{factor:.10g}"
    return damage


def whole_signal(patch: Patch) -> None:
    original = layer.affine
    for place in (layer, module):
        patch.setattr(place, "affine", lambda g, *a: original(g * SLIGHTLY, *a))


def leak(patch: Patch) -> None:
    original = layer.select
    for name in ("select", "select_into"):
        patch.setattr(layer, name, lambda x, m: original(x, m) + 1e-9 * original(x, 1 - m))


def another_rate(patch: Patch) -> None:
    def observed(self: MissingEntries, inputs: np.ndarray, seed: int, index: int = 0) -> np.ndarray:
        return generator(seed, "missing entries", index).random(inputs.shape) >= self.rate + 0.004

    patch.setattr(MissingEntries, "observed", observed)


def inputs_that_share_their_fate(patch: Patch) -> None:
    original = MissingEntries.observed

    def observed(self: MissingEntries, *given: object, **named: object) -> np.ndarray:
        mask = original(self, *given, **named)
        mask[::50, 1:2] = mask[::50, :1]
        return mask

    patch.setattr(MissingEntries, "observed", observed)


def half_of_the_inputs_share_their_fate(patch: Patch) -> None:
    original = MissingEntries.observed

    def observed(self: MissingEntries, *given: object, **named: object) -> np.ndarray:
        mask = original(self, *given, **named)
        mask[::20, 1:5] = mask[::20, :1]
        return mask

    patch.setattr(MissingEntries, "observed", observed)


def closed_contributions(patch: Patch) -> None:
    scaled(shapley, "contributions", SLIGHTLY)(patch)
    scaled(mcar_moments, "contributions", SLIGHTLY)(patch)


def another_chance_of_subsets(patch: Patch) -> None:
    """Every subset alike: right for a neuron, but not for a network."""
    patch.setattr(counterfactual, "math", SimpleNamespace(comb=lambda n, k: 2**n / (n + 1) if n else 1, inf=math.inf))


def chances_of_subsets_slightly_off(patch: Patch) -> None:
    patch.setattr(counterfactual, "math", SimpleNamespace(comb=lambda n, k: math.comb(n, k) * SLIGHTLY, inf=math.inf))


def one_order_only(patch: Patch) -> None:
    """Complete, and exact in a neuron: the sum does not show it."""
    patch.setattr(counterfactual, "generator", lambda *a: SimpleNamespace(permutation=np.arange))


def enumeration_of_one_order(patch: Patch) -> None:
    def shapley_by_one_order(model, values, mask, players=None):
        patch.setattr(counterfactual, "generator", lambda *a: SimpleNamespace(permutation=np.arange))
        return counterfactual.shapley_by_permutation(model, values, mask, players, permutations=1)

    patch.setattr(shapley, "shapley_by_enumeration", shapley_by_one_order)


def half_of_the_effect(patch: Patch) -> None:
    scaled(shapley, "removal_effect", 1 - 1e-9)(patch)


def other_neutralizer(patch: Patch) -> None:
    original = neuron.Neuron.defined
    patch.setattr(
        neuron.Neuron,
        "defined",
        lambda self, *, level=0, shares=None: original(self, level=self.b / 10**6 + level, shares=shares),
    )


def other_wedge(patch: Patch) -> None:
    k, r = sp.symbols("k r", positive=True)
    patch.setattr(decisiveness, "wedge", lambda: (k, r, sp.atan(2 * (1 + sp.Rational(1, 10**9)) * sp.sqrt(k / r))))


def other_inflation(patch: Patch) -> None:
    rho, p = sp.symbols("rho p", positive=True)
    patch.setattr(bias_inflation, "inflation", lambda: (rho, p, 1 / (rho + (1 - rho) / p) * (1 + sp.Rational(1, 100))))


def other_chances(patch: Patch) -> None:
    original = sp.binomial
    patch.setattr(compensatory_weight.sp, "binomial", lambda n, k: original(n, k) + sp.Rational(k, 10**6))


def quadrature_slightly_off(patch: Patch) -> None:
    original = decisiveness.expectation
    patch.setattr(decisiveness, "expectation", lambda m, k: original(m, k) + (0.004 if k else 0.0))


def larger_compensation(patch: Patch) -> None:
    """A compensatory weight that is slightly too large."""
    original = layer.bias_level
    patch.setattr(layer, "bias_level", lambda f, b, c: original(f, b, c if c is None else c * SLIGHTLY))


fraction = scaled(layer, "observed_fraction", SLIGHTLY)
confidence = scaled(decisiveness, "mean_confidence", SLIGHTLY - 2e-9)
entropy = scaled(decisiveness, "normalised_entropy", SLIGHTLY - 2e-9)
distance = scaled(decisiveness, "mean_distance_from_half", SLIGHTLY)

TEETH: list[tuple[Damage, list[Check]]] = [
    (other_neutralizer, [shapley.prove_contributions, shapley.bridge_attribution]),
    (other_neutralizer, [mcar_moments.prove_moments, mcar_moments.bridge_moments]),
    (closed_contributions, [shapley.bridge_attribution, shapley.first_layer, mcar_moments.closed_form]),
    (fraction, [shapley.bridge_attribution, shapley.first_layer, shapley.complete_through_a_network]),
    (fraction, [mcar_moments.bridge_moments, mcar_moments.closed_form, mcar_moments.sampled_masks]),
    (fraction, [decisiveness.convex_measures, decisiveness.gaussian_measures, decisiveness.bolder_case_by_case]),
    (fraction, [decisiveness.saturating_control]),
    (fraction, [bias_inflation.bridge_stationary, bias_inflation.fitted]),
    (whole_signal, [mcar_moments.bridge_moments, mcar_moments.sampled_masks, shapley.single_effects_control]),
    (whole_signal, [mcar_moments.broken_control]),
    (whole_signal, [decisiveness.convex_measures, decisiveness.gaussian_measures, decisiveness.bolder_case_by_case]),
    (whole_signal, [decisiveness.saturating_control, bias_inflation.bridge_stationary]),
    (leak, [shapley.first_layer, mcar_moments.sampled_masks, bias_inflation.fitted]),
    (leak, [decisiveness.gaussian_measures, decisiveness.bolder_case_by_case, shapley.single_effects_control]),
    (larger_compensation, [shapley.bridge_attribution, shapley.first_layer, bias_inflation.fitted]),
    (another_rate, [mcar_moments.sampled_masks, mcar_moments.broken_control, bias_inflation.fitted]),
    (inputs_that_share_their_fate, [mcar_moments.sampled_masks]),
    (half_of_the_inputs_share_their_fate, [bias_inflation.fitted, bias_inflation.broken_control]),
    (another_chance_of_subsets, [shapley.complete_through_a_network]),
    (chances_of_subsets_slightly_off, [shapley.first_layer, shapley.complete_through_a_network]),
    (one_order_only, [shapley.sampled_orders]),
    (enumeration_of_one_order, [shapley.complete_through_a_network]),
    (half_of_the_effect, [shapley.first_layer, shapley.single_effects_control]),
    (confidence, [decisiveness.gaussian_measures]),
    (entropy, [decisiveness.gaussian_measures]),
    (distance, [decisiveness.gaussian_measures, decisiveness.saturating_control]),
    (quadrature_slightly_off, [decisiveness.gaussian_measures]),
    (other_wedge, [decisiveness.prove_law, decisiveness.bolder_case_by_case]),
    (other_inflation, [bias_inflation.prove_any_fraction, bias_inflation.bridge_stationary, bias_inflation.fitted]),
    (other_chances, [bias_inflation.prove_inflation]),
]
SLOW = {
    *((damage, bias_inflation.fitted) for damage in (leak, larger_compensation, other_inflation)),
    *((damage, mcar_moments.sampled_masks) for damage in (leak, whole_signal)),
    (other_chances, bias_inflation.prove_inflation),
}
"""Half a second and more each, of checks that other damage shows to be awake too."""
CASES = [
    pytest.param(
        damage,
        check,
        id=f"{damage.__name__}:{check.__module__.split('.')[-1]}.{check.__name__}",
        marks=[pytest.mark.slow] if (damage, check) in SLOW else [],
    )
    for damage, checks in TEETH
    for check in checks
]
THEOREMS = (
    shapley.SHAPLEY,
    mcar_moments.MCAR_MOMENTS,
    decisiveness.DECISIVENESS,
    bias_inflation.BIAS_INFLATION,
)


@pytest.mark.parametrize(("damage", "check"), CASES)
def test_slight_damage_is_seen(damage: Damage, check: Check, monkeypatch: Patch) -> None:
    assert_seen(damage, check, monkeypatch, 25)


def test_every_leg_has_been_seen_to_fail() -> None:
    legs = set(itertools.chain.from_iterable(theorem.checks for theorem in THEOREMS))
    assert legs == set(itertools.chain.from_iterable(checks for _, checks in TEETH))
    assert len(legs) == 21
