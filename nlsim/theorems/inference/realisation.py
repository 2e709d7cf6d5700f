"""inference.realisation: after the normalised jump the network computes the activities by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy as sp
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Held, Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.systems.inference.energy import Layers, feedforward, normaliser
from nlsim.systems.inference.flow import Settling
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import KINDS, ConstantPrecision, Precision, StepPrecision
from nlsim.systems.inference.update import NormalisedLeastMeanSquares, Update
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.field_algebra import LOSS_NAMES, settled
from nlsim.theorems.inference.proximal_cases import SMOOTH, Draw, number, symbolic_net, symbolic_twin
from nlsim.theorems.inference.running import running
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Sigma, every, is_zero


def missed(system: InferenceLearning, draw: Draw, steps: int, dt: float) -> float:
    """Return the largest |h_l(θ') − ĥ_l| over layers, after some Euler steps of inference and the jump.

    Relative to 1 + Π (1 + ‖W'_l‖), by which a rounding in the first layer can grow on its way up.
    """
    inputs = Inputs(*draw.sample())
    state = system.initial_state(draw.weights(), inputs)
    flow, moving = system.moving(state, Held(inputs))
    state = system.whole(state, EXPLICIT_EULER.advance(flow, Held(inputs), moving, 0.0, dt, steps))
    activity = system.settling(state, inputs).activity
    new = system.jump(0.0, state, inputs, inputs).weight
    made = feedforward(system.network, new, draw.sample()[0])
    growth = float(np.prod([1 + float(w.norm()) for w in new]))
    gaps = [float((h - own).abs().max()) for h, own in zip(made, activity, strict=True)]
    return float(np.max(gaps)) / (1 + growth)


def prove_realisation(effort: Effort) -> Evidence:
    """The forward pass of W + e ãᵀ/n is ĥ, layer by layer."""
    answers: list[bool | None] = []
    for widths, has_bias in (((1, 1, 1), False), ((1, 2, 1), True), ((2, 2, 2), False), ((1, 1, 2, 1), True)):
        net = symbolic_net(widths, has_bias=has_bias, activation=Sigma)
        source: Any = net.x
        for layer, own in enumerate(net.h):
            augmented = source.col_join(sp.ones(1, 1)) if has_bias else source
            passed = (net.closest(layer) * augmented).applyfunc(settled)
            answers += [is_zero(p - h) for p, h in zip(passed, own, strict=True)]
            source = passed.applyfunc(lambda a: Sigma(sp.cancel(a)))
    return Evidence(
        Leg.PROOF,
        "forward pass of the new weights = ĥ",
        judge(every(answers)),
        "for abstract φ; nets 1-1-1, 2-2-2, 1-2-1 and 1-1-2-1 with biases",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_jump(effort: Effort) -> Evidence:
    """W + e ãᵀ/n in numbers against the jump of the running system, at activities that minimise nothing."""
    worst, count = 0.0, 0
    for activation in SMOOTH:
        for has_bias in (False, True):
            draw = Draw((2, 3, 2), activation, has_bias=has_bias, seed=4)
            net, values, _ = symbolic_twin(draw)
            system, inputs = running(draw, ConstantPrecision(), output="free"), Inputs(*draw.sample())
            state = replace(system.initial_state(draw.weights(), inputs), activity=draw.activity())
            for layer, w in enumerate(system.jump(0.0, state, inputs, inputs).weight):
                for i, j in np.ndindex(*w.shape):
                    gap = abs(number(net.closest(layer)[i, j], values) - float(w[i, j]))
                    worst, count = float(np.maximum(worst, gap)), count + 1
    return Evidence(
        Leg.BRIDGE,
        "W + e ãᵀ/n = the system's jump",
        judge(worst <= 1e-13 and count >= 80),
        "≤ 1e-13 over tanh, identity, softplus; with and without biases",
        f"{worst:.2g} over {count} weights",
    )


def realised(effort: Effort) -> Evidence:
    """Every rule and clamp of the running system, stopped after any number of Euler steps."""
    rules: list[Precision] = [ConstantPrecision(), *(StepPrecision(0.7, kind) for kind in KINDS)]

    def error_of(case: tuple[tuple[int, ...], str, str, bool, int, str, int, float, bool, int]) -> float:
        widths, activation, loss, has_bias, rule, output, steps, dt, is_scaled, seed = case
        # without biases a relu may silence a layer: ã = 0, where nothing can be realised
        draw = Draw(widths, activation, loss, has_bias or activation == "relu", seed)
        return missed(running(draw, rules[rule], output=output, is_scaled=is_scaled), draw, steps, dt)

    return check_property(
        "h_l(θ') = ĥ_l in every layer",
        "≤ 1e-13 relative after 0 to 12 Euler steps of any rule and clamp; depth 1 to 5, both losses",
        effort,
        st.tuples(
            st.lists(st.integers(1, 6), min_size=2, max_size=6).map(tuple),
            st.sampled_from((*SMOOTH, "logistic", "relu")),
            st.sampled_from(LOSS_NAMES),
            st.booleans(),
            st.integers(0, len(rules) - 1),
            st.sampled_from(("clamped", "free", "settled")),
            st.integers(0, 12),
            st.floats(0.01, 0.2),
            st.booleans(),
            st.integers(0, 10**6),
        ),
        error_of,
        1e-13,
    )


def epsilon_order(effort: Effort) -> Evidence:
    """With ε in the normaliser of the jump the activities are missed in proportion to ε."""
    draw, sizes = Draw(seed=5), (1e-1, 1e-2, 1e-3, 1e-4)
    misses = []
    for epsilon in sizes:
        update = NormalisedLeastMeanSquares(epsilon=epsilon)
        misses.append(missed(running(draw, StepPrecision(0.7), update=update), draw, 8, 0.1))
    order = observed_order(sizes, misses)
    return Evidence(
        Leg.ORDER,
        "ε in the normaliser",
        judge(abs(order - 1) <= 0.05),
        "slope 1 ± 0.05 in ε, from 0.1 to 1e-4",
        f"{order:.3f}",
        (Table("ĥ missed by", tuple(f"ε = {e:g}" for e in sizes), (tuple(f"{m:.2e}" for m in misses),)),),
    )


@dataclass(frozen=True)
class _WrongNormaliser:
    """The normalised update with another norm: of the feedforward activities, of ĥ before φ, or without the bias."""

    norm: str

    def moments(self, weights: Layers) -> Layers:
        return ()

    def apply(self, network: LayeredNetwork, weights: Layers, moments: Layers, seen: Settling) -> tuple[Layers, Layers]:
        sources = seen.predictions.source
        if self.norm == "feedforward":
            made = feedforward(network, weights, sources[0])
            after = (sigma.value(h) for sigma, h in zip(network.activations, made[:-1], strict=False))
            used: tuple[Tensor, ...] = (sources[0], *after)
        else:
            used = (sources[0], *seen.activity[:-1]) if self.norm == "before φ" else sources
        sizes = [normaliser(w, a) - float(self.norm == "no bias") for w, a in zip(weights, used, strict=True)]
        parts = zip(weights, seen.errors, sources, sizes, strict=True)
        return tuple(w + network.weight_gradient(e / n, a, w) for w, e, a, n in parts), moments


def normaliser_control(effort: Effort) -> Evidence:
    """Wrong norms, another rate and two samples at once must miss the activities."""
    draw, rule = Draw(seed=5), StepPrecision(3.0)
    updates: dict[str, Update] = {
        "n of the feedforward activities": _WrongNormaliser("feedforward"),
        "n before φ": _WrongNormaliser("before φ"),
        "n without the bias": _WrongNormaliser("no bias"),
        "rate 0.9": NormalisedLeastMeanSquares(rate=0.9),
    }
    gaps = {name: missed(running(draw, rule, update=update), draw, 40, 0.1) for name, update in updates.items()}
    two = replace(draw, samples=2)
    gaps["two samples"] = missed(running(two, rule), two, 40, 0.1)
    right = missed(running(draw, rule), draw, 40, 0.1)
    return Evidence(
        Leg.CONTROL,
        "wrong normalisers",
        judge(min(gaps.values()) >= 1e-5 and right <= 1e-13),
        "ĥ missed by 1e-5 and more in the measure that is ≤ 1e-13 with the right normaliser",
        f"{', '.join(f'{name} {gap:.1e}' for name, gap in gaps.items())}; right {right:.1e}",
    )


REALISATION = Theorem(
    key="inference.realisation",
    title="After the normalised jump the network computes the settled activities by itself",
    statement=(
        "Stop inference after any number of steps, at rest or not, under any precisions and any clamp, and let all "
        "weights jump by W_l + e_l ã_{l−1}ᵀ/n_l, n_l = ‖ã_{l−1}‖² at the activities of that moment. The forward pass "
        "of the new network on the same sample then gives those activities, layer by layer. With n + ε they are "
        "missed by O(ε)."
    ),
    hypotheses=("one sample", "ã ≠ 0 in every layer, as biases ensure", "rate 1, the 1 of the bias counted in n"),
    source="after Alonso et al., NeurIPS 2022, on normalised updates; derived here",
    about=(InferenceLearning, NormalisedLeastMeanSquares, feedforward, normaliser),
    checks=(prove_realisation, bridge_jump, realised, epsilon_order, normaliser_control),
)
