"""Networks on arbitrary directed graphs, cycles and self-loops included.

All neurons are one group that feeds itself: a = W x̃ with x̃ = (u, x[, 1]) and a weight matrix that is zero
where there is no arc. Vertices count from 0: the inputs first, then the neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.activation import Activation
from nlsim.systems.backprop import Backpropagation, backpropagate, required_input, required_target
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork

Arc = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Digraph:
    """A network on a directed graph; make one with :func:`digraph`.

    Attributes
    ----------
    inputs, neurons : int
        How many of each.
    mask : Tensor
        bool, shape ``(neurons, inputs + neurons[+1])``: where there is an arc; the last column is the bias.
    activation : Activation
        σ of every neuron.
    outputs : tuple of int
        Neurons (counted from 0 among the neurons) that the loss looks at.
    has_bias : bool
        Whether every neuron has a constant input of 1.
    speeds : Tensor or None
        c_i/c of each neuron, mean 1; None when all are alike.
    """

    inputs: int
    neurons: int
    mask: Tensor
    activation: Activation
    outputs: tuple[int, ...]
    has_bias: bool = False
    speeds: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of neurons, as the only group."""
        return (self.neurons,)

    @property
    def activations(self) -> tuple[Activation, ...]:
        """Return σ, of the only group."""
        return (self.activation,)

    def weight_shape(self, group: int) -> tuple[int, int]:
        """Return neurons × (inputs + neurons + bias)."""
        return self.neurons, self.inputs + self.neurons + int(self.has_bias)

    def relative_speed(self, group: int) -> Tensor | None:
        """Return c_i/c of each neuron, or None."""
        return self.speeds

    def source(self, group: int, given: Tensor, activity: tuple[Tensor, ...]) -> Tensor:
        """Return inputs and activities side by side, with a column of ones for the bias."""
        (x,) = activity
        lead = torch.broadcast_shapes(given.shape[:-1], x.shape[:-1])  # type: ignore[no-untyped-call]
        parts = [given.expand(*lead, -1), x.expand(*lead, -1)]
        if self.has_bias:
            parts.append(x.new_ones(*lead, 1))
        return torch.cat(parts, -1)

    def pre_activation(self, weight: Tensor, source: Tensor) -> Tensor:
        """Return a = W x̃; weights off the arcs are ignored. Cost: one matrix product."""
        return source @ (weight * self.mask).mT

    def pull_backs(self, weights: tuple[Tensor, ...], cotangents: list[Tensor]) -> list[Tensor | None]:
        """Return Σ_k q_k w_ki for every neuron i, self-loops included."""
        recurrent = (weights[0] * self.mask)[..., self.inputs : self.inputs + self.neurons]
        return [cotangents[0] @ recurrent]

    def weight_gradient(self, cotangent: Tensor, source: Tensor, weight: Tensor) -> Tensor:
        """Return Σ over samples of q x̃ᵀ on the arcs, 0 elsewhere."""
        return (cotangent.mT @ source) * self.mask

    def output(self, activity: tuple[Tensor, ...]) -> Tensor:
        """Return the output neurons' activities."""
        return activity[0][..., self._outputs(activity[0])]

    def spread_output(self, force: Tensor) -> list[Tensor | None]:
        """Return the force on the outputs as a force on all neurons, 0 on the others."""
        spread = force.new_zeros(*force.shape[:-1], self.neurons)
        return [spread.index_add(-1, self._outputs(force), force)]

    def initial_weights(
        self, seed: int, *, scale: float = 1.0, dtype: torch.dtype, device: torch.device | str
    ) -> tuple[Tensor, ...]:
        """Draw weights uniform in ±scale·√(3/parents) on the arcs, 0 elsewhere; biases 0."""
        parents = self.mask[:, : self.inputs + self.neurons].sum(1, keepdim=True).clamp(min=1).cpu().numpy()
        drawn = generator(seed, "weight", 0).uniform(-1, 1, self.weight_shape(0)) * scale * (3.0 / parents) ** 0.5
        if self.has_bias:
            drawn[:, -1] = 0.0
        return (torch.from_numpy(drawn * self.mask.cpu().numpy()).to(device=device, dtype=dtype),)

    def rest_output(self, weights: tuple[Tensor, ...], given: Tensor) -> Tensor:
        """Return the outputs at the fixed point of :func:`rest_activity`."""
        return self.output((rest_activity(self, weights, Inputs(given)),))

    def _outputs(self, like: Tensor) -> Tensor:
        return torch.tensor(self.outputs, device=like.device)


def digraph(
    inputs: int,
    neurons: int,
    arcs: Sequence[Arc],
    outputs: Sequence[int],
    activation: Activation,
    *,
    has_bias: bool = False,
    speeds: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Digraph:
    """Build a digraph, refusing what the theory does not cover.

    Parameters
    ----------
    inputs, neurons : int
        Number of inputs d ≥ 0 and of neurons ≥ 1; vertices 0 … d − 1 are the inputs.
    arcs : sequence of (int, int)
        (j, i) for j → i; cycles and self-loops among neurons are allowed.
    outputs : sequence of int
        Vertices that the loss looks at; neurons, each once.
    activation : Activation
        σ of every neuron.
    has_bias : bool
        Whether every neuron has a constant input of 1.
    speeds : sequence of float, optional
        Relative speed of each neuron, > 0; divided by their mean.
    device, dtype
        Of the mask and of the relative speeds.

    Raises
    ------
    NlsimError
        When an arc leads into an input (Betti & Gori, eq. 1), an input feeds no neuron (eq. 2), a vertex is
        out of range, an arc or output comes twice, or a speed is not positive.
    """
    last = inputs + neurons - 1
    for arc in arcs:
        if not all(0 <= vertex <= last for vertex in arc):
            raise NlsimError("An arc names a vertex that is not there.", given=arc, allowed=f"vertices 0 to {last}")
        if arc[1] < inputs:
            raise NlsimError(
                "An arc leads into an input; inputs have no parents.",
                given=arc,
                allowed=f"arcs into the neurons {inputs} to {last}",
            )
    if len(set(arcs)) != len(arcs):
        raise NlsimError("An arc comes twice.", given=next(a for a in arcs if list(arcs).count(a) > 1))
    idle = [j for j in range(inputs) if not any(a == j for a, _ in arcs)]
    if idle:
        raise NlsimError(
            "An input feeds no neuron.", given=idle, advice="Give each input an arc, or leave the input out."
        )
    if not outputs or len(set(outputs)) != len(outputs) or not all(inputs <= o <= last for o in outputs):
        raise NlsimError(
            "The outputs are not distinct neurons.", given=list(outputs), allowed=f"neurons {inputs} to {last}"
        )
    relative = None
    if speeds is not None:
        if len(speeds) != neurons or not all(c > 0 for c in speeds):
            raise NlsimError("The speeds do not fit.", given=list(speeds), allowed=f"{neurons} positive numbers")
        relative = torch.tensor(speeds, device=device, dtype=dtype)
        relative = relative / relative.mean()
    mask = torch.zeros(neurons, inputs + neurons + int(has_bias), dtype=torch.bool)
    for j, i in arcs:
        mask[i - inputs, j] = True
    if has_bias:
        mask[:, -1] = True
    chosen = tuple(o - inputs for o in outputs)
    return Digraph(inputs, neurons, mask.to(device), activation, chosen, has_bias, relative)


def as_digraph(network: LayeredNetwork, *, device: torch.device | str = "cpu") -> Digraph:
    """Return a layered network (one activation throughout) as a digraph."""
    if len({each.name for each in network.activations}) != 1:
        raise NlsimError(
            "The layers have different activations.",
            given=[each.name for each in network.activations],
            allowed="one activation throughout",
        )
    first = [0]
    for width in network.widths:
        first.append(first[-1] + width)
    arcs = [
        (j, i)
        for layer in range(network.depth)
        for i in range(first[layer + 1], first[layer + 2])
        for j in range(first[layer], first[layer + 1])
    ]
    outputs = range(first[-2], first[-1])
    neurons = sum(network.sizes)
    return digraph(
        network.widths[0], neurons, arcs, outputs, network.activations[0], has_bias=network.has_bias, device=device
    )


def join_weights(network: LayeredNetwork, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return layered weights (or any weight-shaped tuple) as the one matrix of :func:`as_digraph`."""
    like = weights[0]
    inputs, neurons = network.widths[0], sum(network.sizes)
    joined = like.new_zeros(*like.shape[:-2], neurons, inputs + neurons + int(network.has_bias))
    row, column = 0, 0
    for weight, width, out in zip(weights, network.widths[:-1], network.sizes, strict=True):
        joined[..., row : row + out, column : column + width] = weight[..., :width]
        if network.has_bias:
            joined[..., row : row + out, -1] = weight[..., -1]
        row, column = row + out, column + width
    return (joined,)


def join_activity(activity: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return layered activities (or costates) as the one group of :func:`as_digraph`."""
    return (torch.cat(activity, -1),)


def rest_activity(network: Digraph, weights: tuple[Tensor, ...], inputs: Inputs, *, iterations: int = 60) -> Tensor:
    """Return the fixed point x = σ(W x̃) by Newton's method from 0, sample by sample.

    Cost: one linear solve of the neurons' size a sample and iteration; quadratic convergence, so the
    iterations stop when the step is below rounding. Where there are several fixed points it is the one that
    Newton's method finds; test its stability before you build on it.
    """
    given = required_input(inputs)
    weight = weights[0]
    lead = torch.broadcast_shapes(given.shape[:-2], weight.shape[:-2])  # type: ignore[no-untyped-call]
    x = given.new_zeros(*lead, given.shape[-2], network.neurons)
    for _ in range(iterations):
        a = network.pre_activation(weight, network.source(0, given, (x,)))
        y = network.activation.value(a)
        step = torch.linalg.solve(_fast_matrix(network, weight, network.activation.slope(a, y)), (y - x)[..., None])
        x = x + step[..., 0]
        if float(step.abs().max()) <= 4 * torch.finfo(x.dtype).eps * max(1.0, float(x.abs().max())):
            break
    return x


def _fast_matrix(network: Digraph, weight: Tensor, slope: Tensor) -> Tensor:
    """Return I − D_σ W for each sample, shape ``(..., sample, neurons, neurons)``."""
    recurrent = (weight * network.mask)[..., network.inputs : network.inputs + network.neurons]
    identity = torch.eye(network.neurons, dtype=weight.dtype, device=weight.device)
    return identity - slope[..., None] * recurrent.unsqueeze(-3)


def fast_abscissa(network: Digraph, weights: tuple[Tensor, ...], inputs: Inputs) -> float:
    """Return the largest real part of the spectrum of −I + D_σ W at rest, over samples; stable below 0."""
    x = rest_activity(network, weights, inputs)
    a = network.pre_activation(weights[0], network.source(0, required_input(inputs), (x,)))
    slope = network.activation.slope(a, network.activation.value(a))
    return float(torch.linalg.eigvals(-_fast_matrix(network, weights[0], slope)).real.max())


@backpropagate.register
def recurrent_backpropagate(
    network: Digraph, loss: Loss, weights: tuple[Tensor, ...], inputs: Inputs
) -> Backpropagation:
    """Return the derivative of the loss through the fixed point x = σ(W x̃): recurrent backpropagation.

    (I − D_σ W)ᵀ π = L_x and ∂L/∂w_ij = Σ_samples σ'(a_i) π_i x_j. It is the limit c → ∞ of the reversed
    costates on cyclic graphs, not backpropagation through time.
    """
    x = rest_activity(network, weights, inputs)
    source = network.source(0, required_input(inputs), (x,))
    a = network.pre_activation(weights[0], source)
    slope = network.activation.slope(a, network.activation.value(a))
    (force,) = network.spread_output(loss.gradient(network.output((x,)), required_target(inputs)))
    assert force is not None
    pi = torch.linalg.solve(_fast_matrix(network, weights[0], slope).mT, force[..., None])[..., 0]
    return Backpropagation((x,), (pi,), (network.weight_gradient(slope * pi, source, weights[0]),))
