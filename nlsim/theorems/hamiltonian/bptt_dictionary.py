"""hamiltonian.bptt-dictionary: costates streamed in reverse are backpropagation through time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.state_space import Readout, StateSpaceNetwork
from nlsim.systems.hamiltonian.stream import learn_sequence, stream_forward, stream_reverse
from nlsim.systems.hamiltonian.transition import WholeTransition
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian import bptt_proof as proof
from nlsim.theorems.hamiltonian.bptt_proof import Weights, streamed
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


@dataclass(frozen=True)
class Recurrent:
    """What fixes a random recurrent network and its tokens; printed when a property fails."""

    inputs: int = 2
    neurons: int = 4
    outputs: int = 2
    hidden: int = 0
    activation: str = "tanh"
    loss: str = "squared_error"
    has_readout: bool = True
    reads_input: bool = False
    tokens: int = 6
    length: int = 6
    tau: float = 1.0
    samples: int = 2
    seed: int = 0

    def network(self) -> StateSpaceNetwork:
        """Return the network; a hidden layer makes the transition two layers deep."""
        widths = (self.inputs + self.neurons, *([self.hidden] if self.hidden else []), self.neurons)
        inner = LayeredNetwork(widths, (ACTIVATIONS[self.activation],) * (len(widths) - 1))
        if not self.has_readout:
            return StateSpaceNetwork(WholeTransition(inner), None)
        widths = (self.neurons + self.inputs * self.reads_input, self.outputs)
        readout = Readout(LayeredNetwork(widths, (ACTIVATIONS["identity"],)), self.reads_input)
        return StateSpaceNetwork(WholeTransition(inner), readout)

    def learning(self, *, eta: float = 0.0, phi: float | None = None) -> HamiltonianLearning:
        """Return the residual transition with η = 0 and φ = 1/τ unless told otherwise."""
        phi = 1 / self.tau if phi is None else phi
        constants = LearningConstants(1.0, eta, phi)
        return HamiltonianLearning(self.network(), LOSSES[self.loss], constants, (1 / self.tau,))

    def drawn(self) -> tuple[Weights, list[Inputs], Weights]:
        """Return weights, tokens (targets on the simplex) and the initial state."""
        draw = generator(self.seed, "bptt case")
        shapes = [each.weight_shape(layer) for each in self.network().networks for layer in range(each.depth)]
        weights = tuple(torch.as_tensor(draw.normal(size=s) / math.sqrt(s[1])) for s in shapes)
        outputs = self.outputs if self.has_readout else self.neurons

        def token() -> Inputs:
            targets = torch.softmax(torch.as_tensor(draw.normal(size=(self.samples, outputs))), -1)
            return Inputs(torch.as_tensor(draw.normal(size=(self.samples, self.inputs))), targets)

        stream = [token() for _ in range(self.tokens)]
        return weights, stream, (torch.as_tensor(draw.normal(size=(self.samples, self.neurons))),)


def through_time(case: Recurrent) -> Weights:
    """Return torch autograd's gradient of the last ``length`` losses through the unrolled network."""
    network, (weights, stream, (h,)) = case.network(), case.drawn()
    assert network.transition is not None
    inner = network.transition.network
    loss = LOSSES[case.loss]
    with torch.enable_grad():
        own = tuple(w.clone().requires_grad_() for w in weights)
        total = torch.zeros((), dtype=torch.float64)
        for k, token in enumerate(stream):
            assert token.input is not None
            assert token.target is not None
            if k == case.tokens - case.length:
                h = h.detach()
            h = inner.forward(own[: inner.depth], torch.cat((token.input, h), -1))[-1]
            if k >= case.tokens - case.length:
                source = torch.cat((token.input, h), -1) if case.reads_input else h
                y = h if network.readout is None else network.readout.network.forward(own[inner.depth :], source)[-1]
                total = total + loss.value(y, token.target).sum()
        return torch.autograd.grad(total, own)


def relative_gap(found: Weights, expected: Weights) -> float:
    """Return the largest difference, relative to the largest entry (at least 1)."""
    size = max(1.0, *(float(e.abs().max()) for e in expected))
    return max(float((f - e).abs().max()) for f, e in zip(found, expected, strict=True)) / size


@st.composite
def recurrent_cases(draw: st.DrawFn) -> Recurrent:
    """Draw a random network, sequence and truncation."""
    tokens = draw(st.integers(1, 8))
    has_readout = draw(st.booleans())
    return Recurrent(
        inputs=draw(st.integers(1, 3)),
        neurons=draw(st.integers(1, 5)),
        outputs=draw(st.integers(1, 3)),
        hidden=draw(st.sampled_from([0, 0, 3])),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        loss=draw(st.sampled_from(sorted(LOSSES))),
        has_readout=has_readout,
        reads_input=has_readout and draw(st.booleans()),
        tokens=tokens,
        length=draw(st.integers(1, tokens)),
        tau=draw(st.sampled_from([1.0, 0.37, 0.01, 3.0])),
        samples=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 10**6)),
    )


def equals_bptt(effort: Effort) -> Evidence:
    """The running reverse stream against torch autograd through the unrolled network."""

    def error_of(case: Recurrent) -> float:
        weights, stream, start = case.drawn()
        found = streamed(case.learning(), weights, stream, start, case.tau, case.length)
        return relative_gap(found, through_time(case))

    return check_property(
        "ω = autograd through the unrolled network",
        # sums over at most 8 tokens of products of 8 Jacobians of 5 neurons: some hundred roundings
        "relative to the largest entry ≤ 1e-12; τ in {1, 0.37, 0.01, 3}, truncated and not, with and without readout",
        effort,
        recurrent_cases(),
        error_of,
        1e-12,
    )


def condition_control(effort: Effort) -> Evidence:
    """Break η = 0, then φ = 1/τ: the gradient through time must be missed."""
    rows, is_right = [], True
    for tau in (1.0, 0.37):
        case = Recurrent(tau=tau)
        weights, stream, start = case.drawn()
        expected = through_time(case)
        learnings = {
            "η = 0, φ = 1/τ": case.learning(),
            "η = 0.05/τ": case.learning(eta=0.05 / tau),
            "φ = 0.9/τ": case.learning(phi=0.9 / tau),
        }
        gaps = [relative_gap(streamed(each, weights, stream, start, tau), expected) for each in learnings.values()]
        is_right &= gaps[0] <= 1e-13 and min(gaps[1:]) > 0.02
        rows.append((f"{tau:g}", *(f"{g:.1e}" for g in gaps)))
    worst = Recurrent(length=3)
    shorter = relative_gap(
        streamed(worst.learning(), *worst.drawn(), 1.0, 3), through_time(replace(worst, length=worst.tokens))
    )
    is_right &= shorter > 0.02
    return Evidence(
        Leg.CONTROL,
        "η > 0, φ ≠ 1/τ, or too short a stream",
        judge(is_right),
        "relative gap above 0.02, where the conditions give round-off",
        "; ".join(" ".join(row[1:]) for row in rows) + f"; r = 3 of 6 against all {shorter:.1e}",
        (Table("gap from autograd through time", ("τ", *learnings), tuple(rows)),),
    )


BPTT_DICTIONARY = Theorem(
    key="hamiltonian.bptt-dictionary",
    title="Costates streamed in reverse are backpropagation through time",
    statement=(
        "Stream n tokens forward and keep the states, then stream them in reverse with the weights held: for η = 0 "
        "and φ = 1/τ the costate z at h_ψ is the derivative of all losses from there on, and ω ends as the gradient "
        "of the summed loss, at every τ; with c τ < 1 it is the gradient of the leaky network. Over the last r "
        "tokens only it is backpropagation through time truncated to r. Another constant φ multiplies ω by τφ; "
        "η > 0 destroys the equality."
    ),
    hypotheses=("η = 0", "φ = 1/τ", "β = 0 until the stream ends", "the states are those of the forward stream"),
    source=(
        "Melacci et al., A Unified Framework for Neural Computation and Learning Over Time, eq. 26–27; any c τ and "
        "the scale derived here"
    ),
    about=(HamiltonianLearning, stream_forward, stream_reverse, learn_sequence),
    checks=(
        proof.prove_streaming,
        proof.prove_truncation,
        proof.prove_scale,
        proof.bridge_stream,
        equals_bptt,
        condition_control,
    ),
)
