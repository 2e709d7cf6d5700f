"""Break the running code, one term at a time: the checks of the theorems that speak of it must see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.masked_damage import (
    another_rate,
    climbing_energy,
    doubled_recurrence,
    doubled_speed,
    doubled_sweep,
    energy_symbols_squared_mask,
    energy_twice_coupled,
    flat_curvature,
    flat_slope,
    forgetting_hold,
    forgetting_sweep,
    full_bias,
    halved_recurrence,
    halved_speed,
    imputing_traces,
    jumping_state,
    late_edges,
    leaking_slots,
    lost_constant,
    lost_edges,
    louder_drive,
    mask_force_without_bias,
    neumiss_symbols_ungated,
    one_draw_for_all,
    one_form,
    quadratic_neutralizer,
    slow_neumiss,
    swapped_designs,
    symbols_without_the_bias_share,
    uncentred,
    undamped_symbols,
    ungated_energy_gradient,
    ungated_output,
    whole_constant,
    wrong_neutralizer,
)

from nlsim.theorems.evidence import Finding
from nlsim.theorems.masked import (
    blackout_decay,
    contraction,
    energy_jump,
    fast_mask_limits,
    hold_or_forget,
    neumiss_equilibrium,
    neuron_symbols,
    no_learning,
    no_learning_networks,
    persistence,
    soft_mask_bounds,
)
from nlsim.theorems.statement import Effort

Patch = pytest.MonkeyPatch
EFFORT = Effort(10)
SLOW = {
    blackout_decay.bias_control,
    blackout_decay.decay_property,
    blackout_decay.landing_order,
    blackout_decay.neutral_limits,
    contraction.blackout_rest,
    contraction.coupling_control,
    contraction.flow_property,
    contraction.step_property,
    energy_jump.balance_order,
    energy_jump.jump_property,
    energy_jump.monotone_control,
    fast_mask_limits.fluctuation_order,
    fast_mask_limits.jensen_gap,
    fast_mask_limits.recurrent_limit,
    hold_or_forget.prove_designs,
    neumiss_equilibrium.flow_property,
    neumiss_equilibrium.iteration_property,
    no_learning.contrastive,
    no_learning.finite_difference,
    no_learning.imputation_control,
    persistence.norm_control,
    soft_mask_bounds.tracking_order,
}
"""Checks that take a second or more when broken; together too long for every run of the tests."""


TEETH: list[tuple[Callable[[Patch], None], list[Callable]]] = [
    (
        full_bias,
        [
            neuron_symbols.bridge_field,
            blackout_decay.decay_property,
            blackout_decay.neutral_limits,
            blackout_decay.bias_control,
            persistence.drive_is_neutral,
            contraction.blackout_rest,
            energy_jump.bridge_energy,
            fast_mask_limits.jensen_gap,
            hold_or_forget.partial_outage,
        ],
    ),
    (louder_drive, [soft_mask_bounds.lipschitz_property, soft_mask_bounds.tracking_property]),
    (louder_drive, [soft_mask_bounds.tracking_order, fast_mask_limits.mean_and_variance]),
    (louder_drive, [fast_mask_limits.averaged_mask_control, no_learning.finite_difference]),
    (
        halved_recurrence,
        [
            contraction.rate_is_attained,
            contraction.coupling_control,
            persistence.single,
            persistence.symmetric_net,
            persistence.norm_control,
            soft_mask_bounds.strong_coupling_control,
            fast_mask_limits.recurrent_limit,
        ],
    ),
    (doubled_recurrence, [contraction.step_property, contraction.blackout_rest]),
    (halved_speed, [contraction.step_property, contraction.flow_property]),
    (doubled_speed, [blackout_decay.euler_threshold, blackout_decay.landing_order, soft_mask_bounds.tracking_order]),
    (doubled_sweep, [blackout_decay.decay_property, hold_or_forget.partial_outage, fast_mask_limits.mean_and_variance]),
    (forgetting_hold, [hold_or_forget.freeze_property, hold_or_forget.designs_differ, hold_or_forget.mixed_up_control]),
    (forgetting_sweep, [hold_or_forget.partial_outage, hold_or_forget.freeze_property]),
    (one_form, [neuron_symbols.bridge_field, fast_mask_limits.mean_and_variance]),
    (lost_edges, [blackout_decay.decay_property, soft_mask_bounds.kink, energy_jump.monotone_control]),
    (lost_edges, [fast_mask_limits.fluctuation_order, no_learning.blackout_property]),
    (late_edges, [blackout_decay.landing_order, blackout_decay.decay_property, soft_mask_bounds.kink]),
    (another_rate, [fast_mask_limits.mean_and_variance]),
    (one_draw_for_all, [fast_mask_limits.mean_and_variance]),
    (jumping_state, [soft_mask_bounds.kink]),
    (energy_twice_coupled, [energy_jump.bridge_energy, energy_jump.jump_property, energy_jump.balance_order]),
    (mask_force_without_bias, [energy_jump.bridge_energy, energy_jump.jump_property, energy_jump.balance_order]),
    (climbing_energy, [energy_jump.jump_property, energy_jump.monotone_control]),
    (flat_curvature, [energy_jump.monotone_control]),
    (ungated_energy_gradient, [no_learning.contrastive, energy_jump.bridge_energy]),
    (ungated_output, [neumiss_equilibrium.bridge_field, neumiss_equilibrium.flow_property]),
    (ungated_output, [neumiss_equilibrium.iteration_property]),
    (slow_neumiss, [neumiss_equilibrium.iteration_property, neumiss_equilibrium.large_eigenvalue_control]),
    (uncentred, [neumiss_equilibrium.bridge_field, neumiss_equilibrium.flow_property]),
    (flat_slope, [no_learning.bridge_injection, no_learning.finite_difference, no_learning.imputation_control]),
    (imputing_traces, [no_learning.blackout_property, no_learning.imputation_control]),
    (leaking_slots, [no_learning.blackout_property, no_learning.bridge_injection]),
    (swapped_designs, [blackout_decay.decay_property, soft_mask_bounds.kink]),
    (wrong_neutralizer, [neuron_symbols.prove_drive, blackout_decay.prove_decay, no_learning.prove_injection]),
    (quadratic_neutralizer, [soft_mask_bounds.prove_affine]),
    (undamped_symbols, [hold_or_forget.prove_designs]),
    (energy_symbols_squared_mask, [energy_jump.prove_balance, energy_jump.bridge_energy]),
    (neumiss_symbols_ungated, [neumiss_equilibrium.prove_rest, neumiss_equilibrium.bridge_field]),
    (
        whole_constant,
        [
            no_learning_networks.bridge_gradients,
            no_learning_networks.inference_property,
            no_learning_networks.hamiltonian_property,
        ],
    ),
    (lost_constant, [no_learning_networks.network_control]),
    (wrong_neutralizer, [no_learning_networks.prove_gradients, no_learning_networks.bridge_gradients]),
    (symbols_without_the_bias_share, [neuron_symbols.prove_drive, neuron_symbols.bridge_field]),
]
CASES = [
    pytest.param(
        damage,
        check,
        id=f"{damage.__name__}:{check.__module__.split('.')[-1]}.{check.__name__}",
        marks=[pytest.mark.slow] if check in SLOW else [],
    )
    for damage, checks in TEETH
    for check in checks
]
THEOREMS = (
    blackout_decay.BLACKOUT_DECAY,
    contraction.CONTRACTION,
    persistence.PERSISTENCE,
    soft_mask_bounds.SOFT_MASK_BOUNDS,
    fast_mask_limits.FAST_MASK_LIMITS,
    energy_jump.ENERGY_JUMP,
    hold_or_forget.HOLD_OR_FORGET,
    neumiss_equilibrium.NEUMISS_EQUILIBRIUM,
    no_learning.NO_LEARNING_IN_BLACKOUT,
)


@pytest.mark.parametrize(("damage", "check"), CASES)
def test_broken_code_fails_the_check(damage: Callable, check: Callable, monkeypatch: Patch) -> None:
    damage(monkeypatch)
    with torch.no_grad():
        try:
            evidence = check(EFFORT)
        except ArithmeticError:  # a run that ends otherwise: verify reports it as failed
            return
    assert evidence.finding is not Finding.PASSED, evidence.measured


def test_every_check_has_been_seen_to_fail() -> None:
    bitten = {check for _, checks in TEETH for check in checks}
    assert {check for theorem in THEOREMS for check in theorem.checks} == bitten
    assert len({theorem.key for theorem in THEOREMS}) == len(THEOREMS)
    assert {theorem.family for theorem in THEOREMS} == {"masked"}
