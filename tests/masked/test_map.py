"""Which tests hold the 27 points that masked inputs were specified by; each of them is there and would be run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

POINTS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "golden table; every mask of a random layer against neutralizers",
        (
            "pre_activation.golden_table",
            "pre_activation.golden_neutralizers",
            "pre_activation.every_mask_of_a_random_layer_against_neutralizers",
        ),
    ),
    2: ("nothing observed", ("pre_activation.nothing_observed_is_exactly_zero_and_exactly_w_c",)),
    3: (
        "complete input is the dense layer, bit for bit",
        (
            "dense_module.complete_input_gives_the_bits_of_the_dense_layer",
            "dense_module.complete_rows_beside_incomplete_ones_keep_their_bits",
            "convolution_module.a_complete_image_gives_the_ordinary_convolution",
        ),
    ),
    4: (
        "missing slots are without effect",
        (
            "pre_activation.what_a_missing_slot_holds_is_without_effect",
            "convolution_module.what_a_missing_slot_holds_is_without_effect",
        ),
    ),
    5: ("gradients", ("pre_activation.gradients_of_a_sample", "pre_activation.gradients_against_differences")),
    6: ("weights of zero", ("pre_activation.a_weight_of_zero_with_nothing_missing_has_finite_gradients",)),
    7: (
        "b = 0 is zero imputation",
        (
            "pre_activation.without_bias_it_is_zero_imputation",
            "dense_module.with_a_bias_of_zero_training_is_that_of_zero_imputation",
        ),
    ),
    8: ("w_c between the two", ("pre_activation.w_c_leads_from_promissing_to_zero_imputation",)),
    9: (
        "sparsity normalisation, partial convolution, padding",
        (
            "pre_activation.sparsity_normalisation_shrunk_by_the_fraction",
            "convolution_module.it_is_the_fraction_times_the_partial_convolution",
            "convolution_module.padding_keeps_or_loses_bias_at_the_border",
        ),
    ),
    10: (
        "one feature more; tied missing indicator",
        (
            "pre_activation.a_dense_layer_without_bias_on_one_feature_more",
            "pre_activation.a_missing_indicator_layer_with_tied_coefficients",
        ),
    ),
    11: (
        "scales, shifts, permutations",
        (
            "pre_activation.scales_do_not_matter_shifts_do_by_the_closed_form",
            "pre_activation.the_order_of_inputs_does_not_matter",
        ),
    ),
    12: (
        "additivity, Shapley values, soft masks",
        (
            "pre_activation.contributions_add_up_also_for_soft_masks",
            "counterfactual.shapley_values_of_a_network_are_averages_over_all_orders",
        ),
    ),
    13: ("moments under random masks", ("negative_controls.mean_and_variance_under_random_masks",)),
    14: ("inflated bias", ("negative_controls.least_squares_inflates_the_bias_and_w_c_undoes_it",)),
    15: (
        "masks of rows, p of the layer, one input",
        ("pre_activation.masks_belong_to_rows_and_p_to_the_layer", "pre_activation.one_input"),
    ),
    16: ("dtype of the mask", ("pre_activation.the_dtype_of_the_mask_does_not_matter",)),
    17: (
        "carried masks",
        (
            "carried_masks.an_all_missing_sample_gives_exactly_zero_in_every_layer",
            "carried_masks.without_carrying_it_is_a_constant_that_is_not_zero",
        ),
    ),
    18: (
        "blackout, contraction, persistence",
        (
            "dynamics_neuron.18_blackout_decay_law_and_its_limit",
            "dynamics_neuron.18_contraction_at_the_rate_of_the_linear_network",
            "dynamics_neuron.18_persistence_beyond_norm_one",
        ),
    ),
    19: (
        "edges and integrators",
        (
            "dynamics_neuron.19_a_mask_edge_makes_a_kink_and_no_jump",
            "dynamics_neuron.19_the_exponential_sweep_is_exact_under_piecewise_constant_masks",
            "dynamics_neuron.19_explicit_euler_is_stable_below_c_dt_2",
        ),
    ),
    20: (
        "bounds of soft masks, fast masks",
        (
            "dynamics_soft.20_two_masks_keep_two_states_within_the_lipschitz_bound",
            "dynamics_soft.20_a_slow_mask_is_tracked_and_the_lag_is_of_first_order",
            "dynamics_soft.20_fast_masks_have_two_limits",
        ),
    ),
    21: (
        "energy",
        (
            "dynamics_energy.21_a_jump_of_the_mask_is_a_jump_of_the_energy",
            "dynamics_energy.21_power_balance_along_a_run_with_a_soft_mask",
            "dynamics_energy.21_energy_falls_between_edges_only",
        ),
    ),
    22: (
        "no plasticity in a blackout",
        (
            "dynamics_plasticity.22_no_plasticity_in_a_blackout",
            "dynamics_plasticity.22_momentum_and_weight_decay_act_in_a_blackout_all_the_same",
            "dynamics_plasticity.22_sensitivities_are_those_of_autograd_through_the_run",
            "scenarios.weights_of_dead_sensors_are_the_same_bits_through_the_outage",
        ),
    ),
    23: ("hold or forget", ("dynamics_neuron.23_holding_freezes_and_forgetting_decays",)),
    24: (
        "the comparison of rules (tools/study/masked.py, whose report is compared with the reference)",
        (
            "study.every_rule_comes_out_at_every_fraction",
            "study.with_nothing_missing_a_neutralizer_network_is_the_plain_one",
            "study.the_report_counts_agreement_within_two_standard_errors",
        ),
    ),
    25: (
        "mechanisms",
        (
            "mechanism.each_column_loses_exactly_its_fraction",
            "mechanism.mnar_takes_one_window_of_ranks_of_the_very_column",
            "mechanism.mar_takes_one_window_of_ranks_of_another_column",
            "mechanism.masks_are_functions_of_inputs_seed_and_index",
        ),
    ),
    26: (
        "negative controls",
        (
            "negative_controls.b_of_zero_shows_no_effect",
            "negative_controls.a_wrong_p_leaves_bias_over",
            "negative_controls.a_guard_takes_away_a_part_of_the_share_only",
            "negative_controls.a_detached_neutralizer_is_another_algorithm",
            "negative_controls.inputs_that_are_not_standardised",
            "negative_controls.a_one_hot_of_zeros_is_not_a_missing_category",
            "negative_controls.normalising_afterwards_ends_neutrality",
            "negative_controls.masks_of_other_rows_are_worth_nothing",
            "negative_controls.shuffled_labels_are_not_learned",
            "negative_controls.logistic_units_send_half_their_weights_up",
        ),
    ),
    27: ("confidence may rise", ("negative_controls.confidence_may_rise_when_inputs_are_removed",)),
}


def test_every_point_has_tests() -> None:
    assert list(POINTS) == list(range(1, 28))


@pytest.mark.parametrize("number", POINTS)
def test_the_tests_are_there(number: int) -> None:
    for name in POINTS[number][1]:
        module, _, test = name.partition(".")
        tree = ast.parse((Path(__file__).parent / f"test_{module}.py").read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == f"test_{test}"]
        assert len(found) == 1, f"point {number}: no test {name}"
        assert not any("skip" in ast.unparse(each) or "xfail" in ast.unparse(each) for each in found[0].decorator_list)
