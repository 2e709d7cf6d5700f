"""hamiltonian.bptt-dictionary: the symbolic proofs and their bridge to the running code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.state_space import StateSpaceNetwork
from nlsim.systems.hamiltonian.stream import stream_forward, stream_reverse
from nlsim.systems.hamiltonian.transition import WholeTransition
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import AbstractLoss, Sigma, every, is_zero

Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class SymbolicSequence:
    """A simple recurrent network with one input, as expressions: h⁺ = h + κ (σ(v u + W h) − h), κ = c τ.

    Attributes
    ----------
    weight : dict
        (i, j) → w_ij; j = 0 is the input.
    states : list of list
        h_0 … h_n, each neuron by neuron, as functions of all weights.
    losses : list
        L of h_1 … h_n.
    """

    weight: dict[tuple[int, int], Any]
    states: list[list[Any]]
    losses: list[Any]
    leak: Any
    activation: Callable[[Any], Any]
    loss: Callable[[list[Any], int], Any]

    def total(self, arc: tuple[int, int], first: int = 0) -> Any:
        """Return the derivative of Σ L through all states that depend on the weight."""
        return sp.diff(sum(self.losses[first:]), self.weight[arc])


def _abstract(h: list[Any], k: int) -> Any:
    return AbstractLoss(*h, sp.Symbol(f"z{k}", real=True))


def unroll(
    neurons: int,
    tokens: int,
    leak: Any,
    activation: Callable[[Any], Any] = Sigma,
    loss: Callable[[list[Any], int], Any] = _abstract,
    first: int = 0,
) -> SymbolicSequence:
    """Unroll a network over tokens; states up to h_first are symbols that no weight moves."""
    weight = {(i, j): sp.Symbol(f"w{i}_{j}", real=True) for i in range(1, neurons + 1) for j in range(neurons + 1)}
    states = [[sp.Symbol(f"h{i}_{k}", real=True) for i in range(1, neurons + 1)] for k in range(first + 1)]
    for k in range(first, tokens):
        now = states[-1]
        proposed = [activation(a) for a in _drives(weight, now, k)]
        states.append([(1 - leak) * h + leak * f for h, f in zip(now, proposed, strict=True)])
    return SymbolicSequence(weight, states, [loss(h, k) for k, h in enumerate(states[1:])], leak, activation, loss)


def _drives(weight: dict[tuple[int, int], Any], state: list[Any], k: int) -> list[Any]:
    source = [sp.Symbol(f"u{k}", real=True), *state]
    return [sum(weight[i, j] * source[j] for j in range(len(source))) for i in range(1, len(state) + 1)]


def stream_symbolically(of: SymbolicSequence, *, tau: Any, phi: Any, eta: Any, length: int) -> dict[Any, Any]:
    """Return ω by eq. 26–27, every derivative taken at the stored states."""
    count, neurons = len(of.states) - 1, len(of.states[0])
    own = [sp.Symbol(f"x{i}", real=True) for i in range(1, neurons + 1)]
    speed = of.leak / tau
    z, pulled, decay = [sp.Integer(0)] * neurons, [sp.Integer(0)] * neurons, sp.Integer(0)
    omega = dict.fromkeys(of.weight, sp.Integer(0))
    for step in range(length):
        index = count - step
        at, before = (dict(zip(own, of.states[k], strict=True)) for k in (index, index - 1))
        score = of.loss(own, index - 1)
        z = [
            (1 - tau * (decay + eta)) * z[i] + tau * (phi * sp.diff(score, own[i]).subs(at) + pulled[i])
            for i in range(neurons)
        ]
        proposed = [of.activation(a) for a in _drives(of.weight, own, index - 1)]
        for arc, w in of.weight.items():
            force = sum(speed * z[i] * sp.diff(proposed[i], w).subs(before) for i in range(neurons))
            omega[arc] = (1 - tau * eta) * omega[arc] + tau * force
        pulled = [
            sum(speed * z[i] * sp.diff(proposed[i], own[j]).subs(before) for i in range(neurons))
            for j in range(neurons)
        ]
        decay = speed
    return omega


def prove_streaming(effort: Effort) -> Evidence:
    """Streamed in reverse, ω is the total derivative of the summed loss, at every τ and every c τ."""
    tau, kappa = sp.symbols("tau kappa", positive=True)
    answers = []
    for neurons, tokens, leak in ((1, 3, kappa), (1, 4, sp.Integer(1)), (2, 2, sp.Integer(1))):
        of = unroll(neurons, tokens, leak)
        omega = stream_symbolically(of, tau=tau, phi=1 / tau, eta=0, length=tokens)
        answers += [is_zero(omega[arc] - of.total(arc)) for arc in of.weight]
    return _report("reverse stream = derivative through time", "ω = d(Σ L)/dθ for η = 0, φ = 1/τ, any τ", answers)


def prove_truncation(effort: Effort) -> Evidence:
    """Streamed over the last r tokens only, ω is the derivative with the state before them held."""
    tau = sp.Symbol("tau", positive=True)
    answers = []
    for length in (1, 2):
        tokens = 3
        of = unroll(1, tokens, sp.Integer(1), first=tokens - length)
        omega = stream_symbolically(of, tau=tau, phi=1 / tau, eta=0, length=length)
        answers += [is_zero(omega[arc] - of.total(arc, tokens - length)) for arc in of.weight]
    return _report("r tokens in reverse", "ω = d(Σ of the last r L)/dθ with h_{n−r} held; r = 1, 2 of 3", answers)


def prove_scale(effort: Effort) -> Evidence:
    """For any constant φ and η = 0, ω is τ φ times the gradient: another φ only rescales the learning rate."""
    tau, phi = sp.symbols("tau phi", positive=True)
    of = unroll(1, 3, sp.Integer(1))
    omega = stream_symbolically(of, tau=tau, phi=phi, eta=0, length=3)
    answers = [is_zero(omega[arc] - tau * phi * of.total(arc)) for arc in of.weight]
    return _report("any loss weight", "ω = τφ d(Σ L)/dθ", answers)


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def bridge_stream(effort: Effort) -> Evidence:
    """The derivative of the unrolled symbolic network, as numbers, equals the running reverse stream."""
    neurons, tokens, worst = 2, 3, 0.0
    for activation, tau, leak in (("tanh", 1.0, 1.0), ("logistic", 0.37, 1.0), ("tanh", 0.37, 0.6)):
        draw = generator(0, "bptt bridge")
        u, z, start = draw.normal(size=tokens), draw.normal(size=(tokens, neurons)), draw.normal(size=neurons)
        matrix = draw.normal(size=(neurons, neurons + 1))

        def loss(h: list[Any], k: int, targets: Any = z) -> Any:
            return sum((x - sp.Float(target, 30)) ** 2 for x, target in zip(h, targets[k], strict=True)) / 2

        of = unroll(neurons, tokens, sp.Float(leak, 30), SYMBOLIC_ACTIVATIONS[activation], loss)
        values = {w: matrix[i - 1, j] for (i, j), w in of.weight.items()}
        values |= {sp.Symbol(f"u{k}", real=True): u[k] for k in range(tokens)}
        values |= {of.states[0][i]: start[i] for i in range(neurons)}
        network = LayeredNetwork((1 + neurons, neurons), (ACTIVATIONS[activation],), has_bias=False)
        learning = HamiltonianLearning(
            StateSpaceNetwork(WholeTransition(network), None),
            LOSSES["squared_error"],
            LearningConstants(0.0, 0.0, 1 / tau),
            (leak / tau,),
        )
        stream = [
            Inputs(torch.full((1, 1), u[k], dtype=torch.float64), torch.as_tensor(z[k : k + 1])) for k in range(tokens)
        ]
        (omega,) = streamed(learning, (torch.as_tensor(matrix),), stream, (torch.as_tensor(start[None]),), tau)
        for i, j in of.weight:
            expression = of.total((i, j))
            symbols = sorted(expression.free_symbols, key=str)
            exact = float(sp.lambdify(symbols, expression, "numpy")(*(values[s] for s in symbols)))
            worst = max(worst, abs(exact - float(omega[i - 1, j])) / (1 + abs(exact)))
    return Evidence(
        Leg.BRIDGE,
        "symbolic derivative through time = running reverse stream",
        judge(worst <= 1e-13),  # a few hundred roundings of numbers of size 1
        "relative difference ≤ 1e-13; two neurons, three tokens, τ = 1 and 0.37, cτ = 1 and 0.6",
        f"{worst:.2g}",
    )


def streamed(
    learning: HamiltonianLearning, weights: Weights, stream: list[Inputs], start: Weights, tau: float, length: int = 0
) -> Weights:
    """Return ω after streaming forward and in reverse (all tokens when ``length`` is 0)."""
    stored = stream_forward(learning, weights, stream, start, tau=tau)
    *_, last = stream_reverse(learning, weights, stream, stored, tau=tau, length=length or None)
    return last.weight_costate
