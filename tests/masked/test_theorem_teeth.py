"""The theorems about masked inputs have teeth: break the running code, and the named checks see it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nlsim.systems.masked import convolution, layer, propagation
from nlsim.theorems.evidence import Finding
from nlsim.theorems.masked import (
    additivity,
    all_missing,
    all_observed,
    compensatory_weight,
    duplication,
    missing_indicator,
    neuron,
    neutralizer_cancellation,
    pruning,
    scale_shift,
    sparsity_ratio,
    zero_weight_gradient,
)
from nlsim.theorems.masked import convolution as windows
from nlsim.theorems.statement import Effort, Theorem

Patch = pytest.MonkeyPatch


def whole_bias(patch: Patch) -> None:
    """Zero imputation."""
    patch.setattr(layer, "observed_fraction", lambda m, dtype, shares=None: torch.ones_like(m[..., :1], dtype=dtype))


def one_input_more(patch: Patch) -> None:
    """p + 1 in place of p."""
    original = layer.observed_fraction
    patch.setattr(layer, "observed_fraction", lambda m, *a: original(m, *a) * m.shape[-1] / (m.shape[-1] + 1))


def product_for_selection(patch: Patch) -> None:
    for name in ("select", "select_into"):
        patch.setattr(layer, name, lambda x, m: x * m)


def no_shares(patch: Patch) -> None:
    original = layer.observed_fraction
    patch.setattr(layer, "observed_fraction", lambda m, dtype, shares=None: original(m, dtype))


def no_compensation(patch: Patch) -> None:
    original = layer.bias_level
    patch.setattr(layer, "bias_level", lambda f, b, c: original(f, b, None) + (0 if c is None else 0 * c))


def compensation_of_what_is_seen(patch: Patch) -> None:
    original = layer.bias_level
    patch.setattr(layer, "bias_level", lambda f, b, c: original(f, b, None) + (0 if c is None else f * c))


def fraction_held_constant(patch: Patch) -> None:
    original = layer.observed_fraction
    patch.setattr(layer, "observed_fraction", lambda *a: original(*a).detach())


def bias_held_constant(patch: Patch) -> None:
    original = layer.bias_level
    patch.setattr(layer, "bias_level", lambda f, b, c: original(f, None if b is None else b.detach(), c) + 0 * b)


def bias_afterwards(patch: Patch) -> None:
    """Add the bias to the product: right to round-off, other bits."""

    def affine(gated: Tensor, fraction: Tensor, weight: Tensor, bias: Tensor, compensation: Tensor | None) -> Tensor:
        return gated @ weight.mT + layer.bias_level(fraction, bias, compensation)

    patch.setattr(layer, "affine", affine)


def no_bias(patch: Patch) -> None:
    original = layer.bias_level
    patch.setattr(layer, "bias_level", lambda f, b, c: 0 * original(f, b, c))


def boosted_signal(patch: Patch) -> None:
    """Sparsity normalisation."""
    original = layer.affine
    patch.setattr(layer, "affine", lambda g, f, *a: original(g / f.clamp(min=0.1), f, *a))


def leak(patch: Patch) -> None:
    """A missing slot that is not quite shut."""
    original = layer.select
    for name in ("select", "select_into"):
        patch.setattr(layer, name, lambda x, m: original(x, m) + 1e-9 * original(x, 1 - m))


def padding_forgotten(patch: Patch) -> None:
    original = convolution.window_fraction
    patch.setattr(
        convolution, "window_fraction", lambda m, k, **o: original(m, k, **{**o, "padding_counts_as": "missing"})
    )


def channels_forgotten(patch: Patch) -> None:
    original = convolution.window_fraction
    patch.setattr(convolution, "window_fraction", lambda m, k, **o: original(m, k, **o) * m.shape[1])


def other_neutralizer(patch: Patch) -> None:
    """A symbolic neutralizer of the other sign: every proof falls."""
    original = neuron.Neuron.defined
    patch.setattr(
        neuron.Neuron,
        "defined",
        lambda self, *, level=0, shares=None: original(self, level=2 * self.b + level, shares=shares),
    )


def defined_with_another_bias(patch: Patch) -> None:
    original = neuron.Neuron.defined
    patch.setattr(neuron.Neuron, "defined", lambda self, **o: original(self, **o) + self.b * self.fraction)


def windows_with_another_neutralizer(patch: Patch) -> None:
    original = windows.symbolic_window
    patch.setattr(windows, "symbolic_window", lambda r, c: original(r, c).subs("b", 0) + windows.symbolic_image()[3])


def soft_carries_nothing(patch: Patch) -> None:
    patch.setitem(propagation.CARRIES, "soft", propagation.carry_none)


def hard_carries_nothing(patch: Patch) -> None:
    patch.setitem(propagation.CARRIES, "hard", propagation.carry_none)


def nothing_carries_all(patch: Patch) -> None:
    patch.setitem(propagation.CARRIES, "none", propagation.carry_soft)


def neutralizers_without_rounding(patch: Patch) -> None:
    patch.setattr(all_missing, "with_neutralizers", layer.masked_affine)


def neutralizers_in_a_select(patch: Patch) -> None:
    patch.setattr(all_observed, "masked_affine", neuron.with_neutralizers)


def padding_always_missing(patch: Patch) -> None:
    original = all_observed.window_fraction
    patch.setattr(
        all_observed, "window_fraction", lambda m, k, **o: original(m, k, **{**o, "padding_counts_as": "missing"})
    )


def fraction_in_single_precision(patch: Patch) -> None:
    patch.setattr(
        neutralizer_cancellation,
        "observed_fraction",
        lambda m, dtype: layer.observed_fraction(m, torch.float32).to(dtype),
    )


def other_chances(patch: Patch) -> None:
    patch.setattr(compensatory_weight.sp, "binomial", lambda n, k: 1)


SEEN = [
    (soft_carries_nothing, all_missing.carried_upwards),
    (hard_carries_nothing, all_missing.carried_upwards),
    (nothing_carries_all, all_missing.first_layer_only_control),
    (neutralizers_without_rounding, all_missing.rounding_control),
    (neutralizers_in_a_select, all_observed.hidden_neutralizer_control),
    (padding_always_missing, all_observed.padding_control),
    (fraction_in_single_precision, neutralizer_cancellation.single_precision_mask_control),
    (other_chances, compensatory_weight.prove_inflation),
    (defined_with_another_bias, all_observed.prove_ordinary),
    (windows_with_another_neutralizer, windows.prove_window),
    (windows_with_another_neutralizer, windows.bridge_window),
    (whole_bias, neutralizer_cancellation.bridge_definition),
    (whole_bias, neutralizer_cancellation.random_layers),
    (whole_bias, neutralizer_cancellation.guarded_division_control),
    (whole_bias, neutralizer_cancellation.single_precision_control),
    (whole_bias, all_missing.bridge_compensated),
    (whole_bias, all_missing.exactly_zero),
    (whole_bias, all_missing.normalisation_control),
    (whole_bias, all_missing.wrong_count_control),
    (whole_bias, pruning.bridge_definition),
    (whole_bias, pruning.deleted_input),
    (whole_bias, pruning.multiplied_mask_control),
    (whole_bias, additivity.bridge_sum),
    (whole_bias, additivity.revealed_in_any_order),
    (whole_bias, sparsity_ratio.bridge_ratio),
    (whole_bias, sparsity_ratio.random_layers),
    (whole_bias, sparsity_ratio.saturating_control),
    (whole_bias, missing_indicator.bridge_tied),
    (whole_bias, missing_indicator.wider_dense_layers),
    (whole_bias, compensatory_weight.bridge_compensated),
    (whole_bias, compensatory_weight.fitted_bias),
    (whole_bias, scale_shift.bridge_shifted),
    (whole_bias, scale_shift.random_layers),
    (whole_bias, scale_shift.recentred_control),
    (whole_bias, duplication.bridge_split),
    (whole_bias, duplication.equal_shares_control),
    (whole_bias, zero_weight_gradient.closed_forms),
    (whole_bias, zero_weight_gradient.detached_control),
    (one_input_more, all_observed.bridge_definition),
    (one_input_more, all_observed.same_bits),
    (no_bias, additivity.zero_imputation_control),
    (one_input_more, neutralizer_cancellation.random_layers),
    (product_for_selection, pruning.slots_do_not_matter),
    (product_for_selection, all_missing.exactly_zero),
    (product_for_selection, pruning.multiplied_mask_control),
    (no_shares, duplication.encodings),
    (no_compensation, compensatory_weight.not_neutral_control),
    (no_compensation, compensatory_weight.special_values),
    (no_compensation, all_missing.exactly_zero),
    (compensation_of_what_is_seen, compensatory_weight.bridge_compensated),
    (compensation_of_what_is_seen, compensatory_weight.not_neutral_control),
    (fraction_held_constant, zero_weight_gradient.soft_mask_gradient),
    (bias_held_constant, zero_weight_gradient.closed_forms),
    (bias_afterwards, all_observed.same_bits),
    (leak, zero_weight_gradient.bridge_gradient),
    (leak, zero_weight_gradient.closed_forms),
    (leak, pruning.slots_do_not_matter),
    (boosted_signal, missing_indicator.untied_control),
    (boosted_signal, additivity.bolder_when_masked),
    (padding_forgotten, windows.explicit_windows),
    (padding_forgotten, windows.partial_convolution),
    (padding_forgotten, windows.complete_and_empty),
    (padding_forgotten, windows.global_fraction_control),
    (channels_forgotten, windows.explicit_windows),
    (other_neutralizer, neutralizer_cancellation.prove_cancellation),
    (other_neutralizer, all_missing.prove_silence),
    (other_neutralizer, pruning.prove_deletion),
    (other_neutralizer, additivity.prove_sum),
    (other_neutralizer, additivity.prove_attribution),
    (other_neutralizer, additivity.prove_moments),
    (other_neutralizer, zero_weight_gradient.prove_gradients),
    (other_neutralizer, sparsity_ratio.prove_ratio),
    (other_neutralizer, missing_indicator.prove_tied),
    (other_neutralizer, compensatory_weight.prove_interpolation),
    (other_neutralizer, scale_shift.prove_scale_and_shift),
    (other_neutralizer, duplication.prove_split),
]


@pytest.mark.parametrize(
    ("damage", "check"), SEEN, ids=[f"{d.__name__}:{c.__module__.split('.')[-1]}.{c.__name__}" for d, c in SEEN]
)
def test_damage_is_seen(damage: Callable[[Patch], None], check: Callable, monkeypatch: Patch) -> None:
    damage(monkeypatch)
    with torch.no_grad():
        assert check(Effort(25)).finding is Finding.FAILED


def test_every_check_is_broken_by_something() -> None:
    modules = {check.__module__ for _, check in SEEN}
    theorems = [each for name in modules for each in vars(sys.modules[name]).values() if isinstance(each, Theorem)]
    assert len(theorems) == 12
    assert {check for theorem in theorems for check in theorem.checks} == {check for _, check in SEEN}
