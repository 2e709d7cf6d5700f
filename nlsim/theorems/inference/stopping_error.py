"""inference.stopping-error: what an inference that stops at a tolerance costs in the step it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nlsim.core.ending import Ending
from nlsim.core.state import norm
from nlsim.core.system import Held, Inputs
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import RK4
from nlsim.integrate.loop import Loop
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import StepPrecision
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.variant_cases import Case, relative, rest, slope
from nlsim.theorems.statement import Effort, Theorem

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
NET = Case(seed=5)
"""Depth 3, tanh, one sample at distance 1; α = 1."""


@dataclass(frozen=True)
class Stopped:
    """A run of inference stopped at ‖∂G‖ = τ, and what it costs.

    Attributes
    ----------
    slope : float
        ‖∂G/∂ĥ‖ where it stopped.
    update : float
        Distance of ΔW from that at rest, relative to it.
    gap : float
        G(ĥ) − G at rest, which is J − J_min of the proximal objective.
    """

    slope: float
    update: float
    gap: float


def stop(case: Case, tolerances: tuple[float, ...], step: float = 0.2) -> list[Stopped]:
    """Run inference by RK4 with the exact precisions, ended by the loop itself at each tolerance."""
    system = case.system(StepPrecision(1.0, "exact"), "settled")
    weights, inputs = case.weights(), case.inputs()
    state = system.initial_state(weights, inputs)
    flow, moving = system.moving(state, Held(inputs))
    ideal = rest(flow, moving, inputs, time=40.0, step=0.4)
    lowest = float(flow.energy(0.0, ideal, inputs).sum())
    best = _update(system, weights, ideal, inputs)
    found: list[Stopped] = []
    for tolerance in tolerances:
        # the loop's tolerance is relative to the larger of 1 and the state
        relative_tolerance = tolerance / max(1.0, float(norm(ideal)))
        loop = Loop(
            system,
            FixedStep(RK4, step),
            Constant(inputs),
            state,
            until=1e4,
            steady_tolerance=relative_tolerance,
            check_every=1,
        )
        list(loop)
        if loop.ending is not Ending.STEADY:
            break
        activity = loop.state.activity
        size = float(norm(flow.vector_field(0.0, activity, inputs)))
        gap = float(flow.energy(0.0, activity, inputs).sum()) - lowest
        found.append(Stopped(size, relative(_update(system, weights, activity, inputs), best), gap))
    return found


def _update(system: InferenceLearning, weights: Layers, activity: Layers, inputs: Inputs) -> Layers:
    state = replace(system.initial_state(weights, inputs), activity=activity)
    jumped = system.jump(0.0, state, inputs, inputs).weight
    return tuple(w - v for w, v in zip(jumped, weights, strict=True))


def stopping_order(effort: Effort) -> Evidence:
    """The update's error is proportional to the tolerance, the gap of the objective to its square."""
    rows, updates, gaps = [], [], []
    for seed in (5, 6, 7):
        found = stop(replace(NET, seed=seed), TOLERANCES)
        stops = [each.slope for each in found]
        updates.append(slope(stops, [each.update for each in found]))
        gaps.append(slope(stops, [each.gap for each in found]))
        rows += [(str(seed), f"{each.slope:.1e}", f"{each.update:.2e}", f"{each.gap:.2e}") for each in found]
    return Evidence(
        Leg.ORDER,
        "error of ΔW and gap of J in the tolerance",
        judge(all(abs(p - 1) <= 0.1 for p in updates) and all(abs(p - 2) <= 0.1 for p in gaps)),
        "slopes 1 ± 0.1 and 2 ± 0.1, τ = 1e-3 to 1e-6, three nets",
        f"{', '.join(f'{p:.3f}' for p in updates)}; {', '.join(f'{p:.3f}' for p in gaps)}",
        (Table("inference stopped at ‖∂G‖ ≤ τ", ("net", "‖∂G‖", "error of ΔW", "J − J_min"), tuple(rows)),),
    )


def state_norm_control(effort: Effort) -> Evidence:
    """Compare the norm of the state, not that of its rate, with the tolerance: it never says that inference rests."""
    sizes, rates = [], []
    for seed in (5, 6, 7):
        case = replace(NET, seed=seed)
        system = case.system(StepPrecision(1.0, "exact"), "settled")
        inputs = case.inputs()
        flow, moving = system.moving(system.initial_state(case.weights(), inputs), Held(inputs))
        rested = rest(flow, moving, inputs, time=40.0, step=0.4)
        sizes.append(float(norm(rested)))
        rates.append(float(norm(flow.vector_field(0.0, rested, inputs))))
    return Evidence(
        Leg.CONTROL,
        "stop when the norm of the state is small",
        judge(min(sizes) > 100 * max(TOLERANCES) and max(rates) <= 1e-13),
        "at rest the state is above 0.1 and its rate below 1e-13: that test never fires, ours does",
        f"‖ĥ‖ {', '.join(f'{s:.2f}' for s in sizes)}; ‖dĥ/dt‖ {max(rates):.1e}",
    )


def fixed_budget_control(effort: Effort) -> Evidence:
    """Stop after a fixed time instead: nets rest at different speeds, and errors are what they happen to be."""
    errors = []
    for seed in range(8):
        case = replace(NET, seed=seed)
        system = case.system(StepPrecision(1.0, "exact"), "settled")
        weights, inputs = case.weights(), case.inputs()
        flow, moving = system.moving(system.initial_state(weights, inputs), Held(inputs))
        best = _update(system, weights, rest(flow, moving, inputs, time=40.0, step=0.4), inputs)
        stopped = RK4.advance(flow, Held(inputs), moving, 0.0, 0.5, 50)
        errors.append(relative(_update(system, weights, stopped, inputs), best))
    return Evidence(
        Leg.CONTROL,
        "stop after t = 25, whatever the rate",
        judge(max(errors) >= 10 * min(errors)),
        "errors of ΔW spread over a factor of 10 or more in 8 nets",
        f"{min(errors):.1e} to {max(errors):.1e}",
    )


STOPPING_ERROR = Theorem(
    key="inference.stopping-error",
    title="Inference stopped at ‖∂G‖ = τ costs O(τ) in the update and O(τ²) in the objective",
    statement=(
        "With the exact precisions, stopping the flow where ‖∂G/∂ĥ‖ = τ changes the weight update by O(τ) and the "
        "proximal objective J by O(τ²), since J of the updated weights is G(ĥ) and G is stationary at rest. The "
        "criterion must look at the rate, not at the state."
    ),
    hypotheses=("one sample, unit-rate normalised updates", "∂²G/∂ĥ² positive definite at rest"),
    source="derived here",
    about=(InferenceLearning, ActivityFlow, StepPrecision, Loop),
    checks=(stopping_order, state_norm_control, fixed_budget_control),
)
