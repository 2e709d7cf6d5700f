"""hamiltonian.locality: every neuron needs itself, its parents and its children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningState, partials
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian import locality_proof as proof
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

Tensors = tuple[Tensor, ...]
_Kept = dict[str, dict[int, Any]]
"""Field of the state → layer → which entries stay; all others are made NaN."""

ALL = slice(None)


def generic(case: Case) -> tuple[LearningState, Inputs]:
    """Return a random point of a case, costates included."""
    draw, weights = generator(case.seed, "locality case"), case.weights()

    def normal(shapes: Sequence[tuple[int, ...]]) -> Tensors:
        return tuple(torch.as_tensor(draw.normal(size=s)) for s in shapes)

    layers = [(case.samples, n) for n in case.widths[1:]]
    return LearningState(
        normal(layers), weights, normal(layers), normal([tuple(w.shape) for w in weights])
    ), case.inputs()


def blot_out(state: LearningState, kept: _Kept) -> LearningState:
    """Return the state with NaN everywhere but in the entries that are kept."""

    def blot(name: str) -> Tensors:
        found = []
        for layer, leaf in enumerate(getattr(state, name)):
            blotted = torch.full_like(leaf, torch.nan)
            if layer in kept.get(name, {}):
                entries = kept[name][layer]
                blotted[entries] = leaf[entries]
            found.append(blotted)
        return tuple(found)

    return LearningState(blot("activity"), blot("weight"), blot("costate"), blot("weight_costate"))


def blot_inputs(inputs: Inputs, *, keeps_input: bool, keeps_target: bool) -> Inputs:
    """Return the inputs with NaN where they are not kept."""
    assert inputs.input is not None
    assert inputs.target is not None
    return Inputs(
        inputs.input if keeps_input else torch.full_like(inputs.input, torch.nan),
        inputs.target if keeps_target else torch.full_like(inputs.target, torch.nan),
    )


def for_activity(layer: int, n: int) -> _Kept:
    """Return what dx_n/dt and the rates of its incoming weights need: the neuron, its weights, its parents."""
    return {
        "activity": {layer: (ALL, n), layer - 1: ALL},
        "weight": {layer: n},
        "costate": {layer: (ALL, n)},
        "weight_costate": {layer: n},
    }


def for_costate(case: Case, layer: int, n: int) -> _Kept:
    """Return what dπ_n/dt needs: the neuron, its children, and for their slopes its children's other parents."""
    is_output = layer == len(case.widths) - 2
    is_alone = is_output and case.loss == "squared_error"  # a sum over outputs
    kept: _Kept = {"activity": {layer: (ALL, n) if is_alone else ALL}, "costate": {layer: (ALL, n)}}
    if not is_output:
        kept["costate"][layer + 1] = ALL
        kept["weight"] = {layer + 1: ALL}
    return kept


def changes(system: Any, case: Case, layer: int, n: int) -> int:
    """Return how many of the neuron's rates change by a bit when all it need not know is NaN."""
    state, inputs = generic(case)
    whole = system.vector_field(0.0, state, inputs)
    near = system.vector_field(
        0.0,
        blot_out(state, for_activity(layer, n)),
        blot_inputs(inputs, keeps_input=layer == 0, keeps_target=False),
    )
    back = system.vector_field(
        0.0,
        blot_out(state, for_costate(case, layer, n)),
        blot_inputs(inputs, keeps_input=False, keeps_target=layer == len(case.widths) - 2),
    )
    pairs = [
        (near.activity[layer][:, n], whole.activity[layer][:, n]),
        (near.weight[layer][n], whole.weight[layer][n]),
        (near.weight_costate[layer][n], whole.weight_costate[layer][n]),
        (back.costate[layer][:, n], whole.costate[layer][:, n]),
    ]
    return sum(int((found != expected).sum()) for found, expected in pairs)


def bitwise(effort: Effort) -> Evidence:
    """Make everything but the neighbours NaN: not one bit of a neuron's field may change."""

    def error_of(drawn: tuple[Case, float, float]) -> float:
        case, where, which = drawn
        layer = int(where * (len(case.widths) - 1))
        n = int(which * case.widths[layer + 1])
        problem = replace(case.problem(mass=0.7), regularisation=0.2)
        return float(sum(changes(system(problem), case, layer, n) for system in (HamiltonEquations, CostateReversal)))

    unit = st.floats(0.0, 1.0, exclude_max=True)
    return check_property(
        "everything but the neighbourhood made NaN",
        "0 rates change by a bit: x, w, p and p_w of a random neuron in random layered nets, both systems",
        effort,
        st.tuples(cases(max_dissipation=2.0), unit, unit),
        error_of,
        0.0,
    )


@dataclass(frozen=True)
class Coupled:
    """The reversed system with a loss term x_1 x_3 that couples the first neurons of layers 1 and 3."""

    inner: CostateReversal
    strength: float

    def vector_field(self, t: float, state: LearningState, inputs: Inputs) -> LearningState:
        """Return the field with ∂(strength · x_1 x_3)/∂x added to the costates."""
        field = self.inner.vector_field(t, state, inputs)
        costate = [pi.clone() for pi in field.costate]
        costate[0][:, 0] += self.strength * state.activity[2][:, 0]
        costate[2][:, 0] += self.strength * state.activity[0][:, 0]
        return replace(field, costate=tuple(costate))


DEEP = Case(widths=(2, 3, 3, 3, 2), activation="tanh", seed=2)


def running_control(effort: Effort) -> Evidence:
    """Couple two hidden neurons two layers apart, or hide a child's other parents: bits must change."""
    system = CostateReversal(DEEP.problem(mass=0.7))
    counts = [changes(each, DEEP, layer, 0) for each in (system, Coupled(system, 0.5)) for layer in (0, 2)]
    state, inputs = generic(DEEP)
    kept = for_costate(DEEP, 1, 0)
    kept["activity"] = {1: (ALL, 0)}  # the neuron without the other parents of its children
    found = system.vector_field(0.0, blot_out(state, kept), inputs).costate[1][:, 0]
    missed = int((found != system.vector_field(0.0, state, inputs).costate[1][:, 0]).sum())
    expected = [0, 0, DEEP.samples, DEEP.samples]
    return Evidence(
        Leg.CONTROL,
        "a coupled loss, or slopes that children do not tell",
        judge(counts == expected and missed == DEEP.samples),
        f"changed rates without and with coupling {expected}; without the other parents {DEEP.samples}",
        f"{counts}; {missed}",
    )


LOCALITY = Theorem(
    key="hamiltonian.locality",
    title="Every neuron needs itself, its parents and its children",
    statement=(
        "The Hamilton equations (NLP 12) of a network are (NLP 14): a neuron's activity moves by its own and its "
        "parents' activities, its costate by its own and its children's costates, speeds, slopes σ'(a_k) and the "
        "weights to them, a weight and its costate by the two neurons it joins. A child's slope is the child's to "
        "tell: written out it holds the child's other parents."
    ),
    hypotheses=(
        "Ψ_i = −x_i + σ(Σ_j w_ij x_j)",
        "ℓ = kV + L with V a sum over weights and L a sum over output neurons (or L_{x_i} told to each output)",
        "cycles, self-loops and unequal speeds are allowed",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, Theorem 2, eq. 12 and 14; the part of slopes derived here",
    about=(HamiltonEquations, CostateReversal, partials),
    checks=(
        proof.prove_components,
        proof.prove_locality,
        proof.prove_slopes,
        proof.bridge_jacobian,
        bitwise,
        proof.coupled_control,
        running_control,
    ),
)
