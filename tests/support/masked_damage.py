"""Ways to break masked dynamics, one term at a time, in the running code or in its symbols."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sympy as sp
import torch

from nlsim.systems.masked import dynamics, energy, learning, neumiss, sensitivity, signal
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.energy import MaskedEnergy
from nlsim.systems.masked.layer import masked_affine
from nlsim.systems.masked.neumiss import NeuMissFlow
from nlsim.systems.masked.sensitivity import MaskedSensitivity
from nlsim.systems.masked.signal import MaskedSignal, RandomMask
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.masked import (
    energy_jump,
    neumiss_equilibrium,
    neuron_symbols,
    no_learning_networks,
)

Patch = pytest.MonkeyPatch


def full_bias(patch: Patch) -> None:
    def imputing(values, mask, weight, bias=None, *, compensation=None, shares=None):
        total = masked_affine(values, mask, weight, None, compensation=compensation, shares=shares)
        return total if bias is None else total + bias.unsqueeze(-2)

    patch.setattr(dynamics, "masked_affine", imputing)
    patch.setattr(energy, "masked_affine", imputing)


def louder_drive(patch: Patch) -> None:
    patch.setattr(dynamics, "masked_affine", lambda *a, **k: 3 * masked_affine(*a, **k))


def halved_recurrence(patch: Patch) -> None:
    original = MaskedNeuron.pre_activation
    patch.setattr(
        MaskedNeuron,
        "pre_activation",
        lambda self, s, i: 0.5 * original(self, s, i) + 0.5 * original(replace(self, recurrent=None), s, i),
    )


def doubled_recurrence(patch: Patch) -> None:
    original = MaskedNeuron.pre_activation
    patch.setattr(
        MaskedNeuron,
        "pre_activation",
        lambda self, s, i: 2 * original(self, s, i) - original(replace(self, recurrent=None), s, i),
    )


def doubled_speed(patch: Patch) -> None:
    original = MaskedNeuron.vector_field
    patch.setattr(MaskedNeuron, "vector_field", lambda self, t, s, i: 2 * original(self, t, s, i))


def halved_speed(patch: Patch) -> None:
    original = MaskedNeuron.vector_field
    patch.setattr(MaskedNeuron, "vector_field", lambda self, t, s, i: 0.5 * original(self, t, s, i))


def doubled_sweep(patch: Patch) -> None:
    original = MaskedNeuron.sweep_
    patch.setattr(MaskedNeuron, "sweep_", lambda self, t, s, i, dt, f: original(self, t, s, i, 2 * dt, f))


def forgetting_hold(patch: Patch) -> None:
    original = MaskedNeuron.vector_field
    patch.setattr(MaskedNeuron, "vector_field", lambda self, *a: original(replace(self, outage="forget"), *a))


def forgetting_sweep(patch: Patch) -> None:
    original = MaskedNeuron.sweep_
    patch.setattr(MaskedNeuron, "sweep_", lambda self, *a: original(replace(self, outage="forget"), *a))


def one_form(patch: Patch) -> None:
    original = MaskedNeuron.target
    patch.setattr(MaskedNeuron, "target", lambda self, *a: original(replace(self, form="state"), *a))


def lost_edges(patch: Patch) -> None:
    patch.setattr(MaskedSignal, "edge_after", lambda self, t: self.signal.edge_after(t))


def late_edges(patch: Patch) -> None:
    original = MaskedSignal.edge_after
    patch.setattr(MaskedSignal, "edge_after", lambda self, t: original(self, t) + 1e-3)


def another_rate(patch: Patch) -> None:
    original = RandomMask.piece
    patch.setattr(RandomMask, "piece", lambda self, t: original(replace(self, rate=0.9 * self.rate), t))


def one_draw_for_all(patch: Patch) -> None:
    original = RandomMask.piece

    def same(self, t):
        held = original(self, t)
        return signal.HeldMask(held.mask[:1].expand_as(held.mask))

    patch.setattr(RandomMask, "piece", same)


def jumping_state(patch: Patch) -> None:
    """Let a blackout reset the state by a jump instead of a kink."""
    original = MaskedNeuron.vector_field

    def jumpy(self, t, s, i):
        is_dark = i.mask is not None and float(i.mask.sum()) == 0
        return original(self, t, s, i) * (1e5 if is_dark else 1.0)

    patch.setattr(MaskedNeuron, "vector_field", jumpy)


def energy_twice_coupled(patch: Patch) -> None:
    original = MaskedEnergy.energy
    patch.setattr(
        MaskedEnergy,
        "energy",
        lambda self, t, s, i: original(replace(self, recurrent=2 * self.recurrent), t, s, i),
    )


def mask_force_without_bias(patch: Patch) -> None:
    original = MaskedEnergy.mask_gradient
    patch.setattr(MaskedEnergy, "mask_gradient", lambda self, s, i: original(replace(self, bias=None), s, i))


def climbing_energy(patch: Patch) -> None:
    original = MaskedEnergy.vector_field
    patch.setattr(MaskedEnergy, "vector_field", lambda self, *a: -original(self, *a))


def ungated_energy_gradient(patch: Patch) -> None:
    original = MaskedEnergy.energy_gradient
    patch.setattr(MaskedEnergy, "energy_gradient", lambda self, s, i: original(self, s, replace(i, mask=None)))


def flat_curvature(patch: Patch) -> None:
    patch.setattr(MaskedEnergy, "neutral_curvature", lambda self: torch.eye(len(self.recurrent)).double())


def ungated_output(patch: Patch) -> None:
    patch.setattr(NeuMissFlow, "target", lambda self, h, i: h @ self.coupling.mT + self.deviation(i))


def slow_neumiss(patch: Patch) -> None:
    original = NeuMissFlow.vector_field
    patch.setattr(NeuMissFlow, "vector_field", lambda self, *a: 0.5 * original(self, *a))


def uncentred(patch: Patch) -> None:
    patch.setattr(NeuMissFlow, "deviation", lambda self, i: neumiss.gate(i.input, neumiss.shown_mask(i)))


def flat_slope(patch: Patch) -> None:
    original = MaskedSensitivity.targets

    def straight(self, state, inputs):
        linear = replace(self.system.activation, slope=lambda a, y: torch.ones_like(a))
        return original(replace(self, system=replace(self.system, activation=linear)), state, inputs)

    patch.setattr(MaskedSensitivity, "targets", straight)


def imputing_traces(patch: Patch) -> None:
    original = MaskedSensitivity.targets

    def full(self, state, inputs):
        goal = original(self, state, inputs)
        return replace(goal, bias=torch.ones_like(goal.bias))

    patch.setattr(MaskedSensitivity, "targets", full)


def leaking_slots(patch: Patch) -> None:
    patch.setattr(sensitivity, "gate", lambda values, mask: torch.nan_to_num(values, nan=1.0))


def swapped_designs(patch: Patch) -> None:
    original = MaskedNeuron.drive
    patch.setattr(MaskedNeuron, "drive", lambda self, i: original(self, replace(i, mask=None)))


def wrong_neutralizer(patch: Patch) -> None:
    patch.setattr(neuron_symbols.SymbolicNeuron, "neutralizer", lambda self, i, j: -self.b[i] / self.w[i, j])


def quadratic_neutralizer(patch: Patch) -> None:
    patch.setattr(
        neuron_symbols.SymbolicNeuron, "neutralizer", lambda self, i, j: -self.m[j] * self.b[i] / (3 * self.w[i, j])
    )


def undamped_symbols(patch: Patch) -> None:
    original = neuron_symbols.SymbolicNeuron.field

    def swapped(self, form, outage, phi):
        rates = original(self, form, "forget", phi)
        return [rate * sum(self.m) for rate in rates] if outage == "hold" else rates

    patch.setattr(neuron_symbols.SymbolicNeuron, "field", swapped)


def energy_symbols_squared_mask(patch: Patch) -> None:
    original = energy_jump.symbolic_energy
    squares = {m: m**2 for m in energy_jump._M}
    patch.setattr(energy_jump, "symbolic_energy", lambda rho: original(rho).subs(squares, simultaneous=True))


def neumiss_symbols_ungated(patch: Patch) -> None:
    def ungated(s: Any, mean: Any, m: Any, x: Any, h: Any) -> Any:
        return -h + s * h + m.multiply_elementwise(x - mean)

    patch.setattr(neumiss_equilibrium, "symbolic_field", ungated)


def symbols_without_the_bias_share(patch: Patch) -> None:
    original = neuron_symbols.SymbolicNeuron.neutralized_drive
    patch.setattr(
        neuron_symbols.SymbolicNeuron,
        "neutralized_drive",
        lambda self, i: sp.sympify(original(self, i)) + (1 - sum(self.m) / 3) * self.b[i],
    )


def whole_constant(patch: Patch) -> None:
    """Let networks see a constant of 1 through the mask: zero imputation, where the bias goes on being taught."""
    original = learning.with_constant

    def full(inputs, shares=None):
        shown = original(inputs, shares)
        ones = torch.ones_like(shown.input[..., -1:])
        return replace(shown, input=torch.cat((shown.input[..., :-1], ones), -1))

    patch.setattr(learning, "with_constant", full)
    patch.setattr(no_learning_networks, "with_constant", full)


def lost_constant(patch: Patch) -> None:
    """Let networks forget their bias where they are shown an input without a mask."""
    original = LayeredNetwork.weight_gradient

    def mute(self, cotangent, source, weight):
        found = original(self, cotangent, source, weight).clone()
        found[..., -1] = 0.0
        return found

    patch.setattr(LayeredNetwork, "weight_gradient", mute)
