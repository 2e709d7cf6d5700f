"""masked.no-learning-in-blackout, networks that learn: what the first layer is taught by inference and by costates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS, IDENTITY
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.hamiltonian.reset import SampleReset, build_learning
from nlsim.systems.hamiltonian.state_space import FORMS
from nlsim.systems.inference.learning import InferenceLearning, InferenceState
from nlsim.systems.inference.post_activation import PostActivationFlow
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.update import LeastMeanSquares, NormalisedLeastMeanSquares
from nlsim.systems.loss import LOSSES, SQUARED_ERROR
from nlsim.systems.masked.learning import GatedSignal, with_constant
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Constant
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.variant_cases import SMOOTH, Case
from nlsim.theorems.masked.neuron_symbols import INPUTS, NEURONS, SymbolicNeuron, identities, symbolic_neuron
from nlsim.theorems.masked.runs import Garbage
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import Sigma, SigmaPrime

_GAMMA = sp.Symbol("gamma", positive=True)
_ABOVE = sp.Symbol("y", real=True)


def symbolic_energy(neuron: SymbolicNeuron, convention: str, phi: Any) -> Any:
    """Return γ‖e_1‖²/2 + (y − Σ φ)²/2 of states x, the first layer seeing its inputs through neutralizers.

    Convention ``"before"``: e_1 = x − a and the layer above sees φ(x); ``"after"``: e_1 = x − φ(a), and it sees x.
    """
    silent = dict.fromkeys([*neuron.v, *neuron.d, *neuron.k], 0)
    made = [neuron.neutralized_drive(i).subs(silent) for i in range(NEURONS)]
    is_before = convention == "before"
    errors = [neuron.x[i] - (a if is_before else phi(a)) for i, a in enumerate(made)]
    seen = sum(phi(x) if is_before else x for x in neuron.x)
    return _GAMMA * sum(e**2 for e in errors) / 2 + (_ABOVE - seen) ** 2 / 2


def symbolic_gradient(neuron: SymbolicNeuron, convention: str, phi: Any) -> list[Any]:
    """Return ∂F/∂(W_1, b) as the running code orders them: for each neuron its weights, then its bias."""
    energy = symbolic_energy(neuron, convention, phi)
    columns = [[*(neuron.w[i, j] for j in range(INPUTS)), neuron.b[i]] for i in range(NEURONS)]
    return [sp.diff(energy, each) for row in columns for each in row]


def prove_gradients(effort: Effort) -> Evidence:
    """Differentiate the free energy, neutralizers included, by W and b of the first layer."""
    neuron, differences = symbolic_neuron(), []
    silent, mu = dict.fromkeys([*neuron.v, *neuron.d, *neuron.k], 0), sum(neuron.m) / INPUTS
    nothing = dict.fromkeys(neuron.m, 0)
    for convention in ("before", "after"):
        found = iter(symbolic_gradient(neuron, convention, Sigma))
        for i in range(NEURONS):
            a = neuron.neutralized_drive(i).subs(silent)
            # at the argument as the definition writes it; that it is the boxed one is masked.neutralizer-cancellation
            error = neuron.x[i] - a if convention == "before" else (neuron.x[i] - Sigma(a)) * SigmaPrime(a)
            for factor in [*(neuron.m[j] * neuron.u[j] for j in range(INPUTS)), mu]:
                slope = next(found)
                differences += [slope + _GAMMA * error * factor, slope.subs(nothing)]
    return identities(
        "∂F/∂W_ij = −γ e_i m_j u_j, ∂F/∂b_i = −γ μ e_i",
        "neutralizers differentiated too, any soft mask; with e_i φ'(a_i) for e_i where states are outputs; 0 at m = 0",
        differences,
    )


def _running_change(convention: str, name: str, values: dict[str, np.ndarray[Any, Any]], gamma: float) -> Tensor:
    """Return what the running code's own jump adds to (W_1, b), divided by the sizes of its step: −∂F/∂(W_1, b)."""
    network = LayeredNetwork((INPUTS, NEURONS, 1), (ACTIVATIONS[name], IDENTITY))
    first = torch.as_tensor(np.column_stack([values["w"], values["b"]]))
    weights = (first, torch.tensor([[1.0] * NEURONS + [0.0]], dtype=torch.float64))
    state, target = torch.as_tensor(values["x"][None]), torch.as_tensor(values["y"][None])
    inputs = with_constant(Inputs(torch.as_tensor(values["u"][None]), target, torch.as_tensor(values["m"][None])))
    if convention == "before":
        system = InferenceLearning(network, SQUARED_ERROR, ConstantPrecision(gamma), "clamped", LeastMeanSquares(1.0))
        jumped = system.jump(0.0, InferenceState((state,), weights, ()), inputs, inputs)
        return jumped.weight[0] - first
    # its jump is the local gradient divided by n_1 = ‖(m ⊙ u, μ)‖², whatever the precision is
    moved = PostActivationFlow(network, SQUARED_ERROR, weights, 1.0, "layer").update((state,), inputs)
    assert inputs.input is not None
    return gamma * inputs.input.square().sum() * (moved[0] - first)


def bridge_gradients(effort: Effort) -> Evidence:
    """Compare the symbolic gradients with what the running jumps of inference learning add to W and b."""
    neuron, gaps = symbolic_neuron(), []
    order = [*neuron.w, *neuron.u, *neuron.m, *neuron.b, *neuron.x, _ABOVE, _GAMMA]
    for convention in ("before", "after"):
        for name in ("tanh", "logistic", "softplus"):
            gradient = symbolic_gradient(neuron, convention, SYMBOLIC_ACTIVATIONS[name])
            symbolic = sp.lambdify(order, gradient, "numpy")
            for case in range(6):
                draw = generator(case, "free energy bridge")
                # no weight near 0, by which a neutralizer divides
                w = draw.uniform(0.3, 1.5, (NEURONS, INPUTS)) * draw.choice((-1.0, 1.0), (NEURONS, INPUTS))
                m = draw.uniform(size=INPUTS) if case % 2 else np.roll([1.0, 1.0, 0.0], case // 2)
                values = {"w": w, "m": m, "u": draw.normal(size=INPUTS), "b": draw.normal(size=NEURONS)}
                # an output in the range of every activation
                values |= {"x": draw.uniform(0.1, 0.9, NEURONS), "y": draw.normal(size=1)}
                gamma = float(draw.uniform(0.5, 2.0))
                listed = [*w.flatten(), *(x for key in ("u", "m", "b", "x", "y") for x in values[key]), gamma]
                expected = np.array(symbolic(*listed))
                found = _running_change(convention, name, values, gamma).numpy().ravel()
                gaps.append(float(np.abs(found + expected).max()))
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic ∂F/∂(W, b) of the first layer = −(what the running jump adds)",
        judge(worst <= 1e-13),  # some hundred roundings of numbers below 10
        "difference ≤ 1e-13; states before and after the activation, three activations, hard and soft masks",
        f"{worst:.2g} over {len(gaps)} cases",
    )


def blackout(case: Case) -> Inputs:
    """Return what a network is shown of a sample in a blackout; the slots hold NaN."""
    masked = MaskedSignal(Constant(case.inputs()), (Outages((Outage(None, 0.0, 1e9),), case.widths[0]),))
    shown: Inputs = GatedSignal(Garbage(masked)).piece(0.0)(0.0)
    return shown


def imputed(case: Case) -> Inputs:
    """Return the same sample under zero imputation: everything counts as seen, and holds 0."""
    given = case.inputs()
    assert given.input is not None
    return replace(given, input=torch.zeros_like(given.input))


def networks() -> st.SearchStrategy[Case]:
    """Draw networks of two to four layers with biases, and samples."""
    # two outputs or more: of one class the cross-entropy teaches nothing
    widths = st.lists(st.integers(2, 6), min_size=3, max_size=5).map(tuple)
    return st.builds(
        Case,
        widths,
        st.sampled_from(SMOOTH),
        st.sampled_from(sorted(LOSSES)),
        st.just(True),
        st.integers(1, 3),
        st.floats(0.1, 3.0),
        st.integers(0, 10**6),
    )


def inference_change(case: Case, inputs: Inputs, update: Any) -> tuple[Tensor, ...]:
    """Return what a jump adds to the weights, from activities that are anywhere, the output being clamped."""
    draw = generator(case.seed, "activity")
    activity = tuple(torch.as_tensor(draw.normal(size=(case.samples, n))) for n in case.widths[1:-1])
    system = case.system(ConstantPrecision(0.7), update=update)
    weights = case.weights()
    jumped = system.jump(0.0, InferenceState(activity, weights, update.moments(weights)), inputs, inputs)
    return tuple(new - old for new, old in zip(jumped.weight, weights, strict=True))


def costate_forces(case: Case, inputs: Inputs, name: str) -> tuple[Tensor, ...]:
    """Return the velocities of the weights' costates, which start at 0, with activities and costates anywhere.

    Parameters
    ----------
    case : Case
        Network and samples.
    inputs : Inputs
        What is shown.
    name : str
        ``"reversal"``: costate-only reversal; else a form of Hamiltonian Learning.
    """
    network, loss, weights = case.network(), case.loss_of_output(), case.weights()
    system: CostateReversal | SampleReset
    if name == "reversal":
        speeds = (2.0,) * network.depth
        system = CostateReversal(LearningProblem(network, loss, speeds, 0.8, 0.3, 0.0))
        state = system.problem.initial_state(weights, case.samples)
    else:
        system = build_learning(network, loss, form=name, beta=0.5, eta=0.3, phi=1.0, speed=2.0)
        state = system.initial_state(weights, case.samples)
    draw = generator(case.seed, "anywhere")
    anywhere = [[torch.as_tensor(draw.normal(size=tuple(h.shape))) for h in state.activity] for _ in range(2)]
    state = replace(state, activity=tuple(anywhere[0]), costate=tuple(anywhere[1]))
    return system.vector_field(0.0, state, inputs).weight_costate


HAMILTONIAN = ("reversal", *FORMS)
UPDATES = (LeastMeanSquares(0.5), NormalisedLeastMeanSquares(0.5, 1e-3))


def inference_property(effort: Effort) -> Evidence:
    """The jump of inference learning in a blackout: the first layer is the same bits, the others move."""

    def error_of(case: Case) -> float:
        worst = 0.0
        for update in UPDATES:
            first, *others = inference_change(case, blackout(case), update)
            if not all(float(each.abs().max()) > 0 for each in others):
                return math.inf
            worst = max(worst, float(first.abs().max()))
        return worst

    return check_property(
        "inference learning: W and b of the first layer in a blackout",
        "exactly 0 from activities that are anywhere with the output clamped, NaN in the slots; all other layers move",
        effort,
        networks(),
        error_of,
        0.0,
    )


def hamiltonian_property(effort: Effort) -> Evidence:
    """The weights' costates of Hamiltonian learning in a blackout: the first layer's get no force, the others' do."""

    def error_of(case: Case) -> float:
        worst = 0.0
        for name in HAMILTONIAN:
            first, *others = costate_forces(case, blackout(case), name)
            if not all(float(each.abs().max()) > 0 for each in others):
                return math.inf
            worst = max(worst, float(first.abs().max()))
        return worst

    return check_property(
        "Hamiltonian learning: forces on the first layer's costates of weights in a blackout",
        f"exactly 0 from states and costates that are anywhere ({', '.join(HAMILTONIAN)}); on all other layers not",
        effort,
        networks(),
        error_of,
        0.0,
    )


def network_control(effort: Effort) -> Evidence:
    """Under zero imputation the biases of the first layer go on being taught, by both ways of learning."""
    least, weights = math.inf, 0.0
    for seed in range(5):
        case = Case(widths=(5, 4, 3, 2), samples=2, seed=seed)
        changes = [inference_change(case, imputed(case), update)[0] for update in UPDATES]
        changes += [costate_forces(case, imputed(case), name)[0] for name in HAMILTONIAN]
        least = min(least, *(float(each[:, -1].abs().max()) for each in changes))
        weights = max(weights, *(float(each[:, :-1].abs().max()) for each in changes))
    return Evidence(
        Leg.CONTROL,
        "zero imputation in networks that learn",
        judge(least >= 1e-2 and weights == 0.0),
        "biases of the first layer are moved by ≥ 0.01 in every case, its weights by exactly 0",
        f"biases by at least {least:.3f}, weights by {weights:g}",
    )


NETWORK_CHECKS = (prove_gradients, bridge_gradients, inference_property, hamiltonian_property, network_control)
"""Legs of masked.no-learning-in-blackout that speak of networks."""
