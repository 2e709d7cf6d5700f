"""Networks as pure functions of their weights: what they must offer, and the layered ones.

A network is a tuple of groups of neurons with one weight matrix each. In a layered network the groups are
the layers; in a digraph (:mod:`nlsim.systems.digraph`) there is a single group that feeds itself.

Layer l (l = 1..D) has pre-activation a_l = W_l x̃_{l−1}, where x̃ is x with a constant 1 appended when
the network has biases: the bias is the last column of W_l. Every function accepts leading ensemble axes
on weights and activities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nlsim.core.randomness import generator
from nlsim.systems.activation import Activation

Constant = float | Tensor
"""A physical constant: one number, or a tensor that broadcasts over the ensemble axes."""


class Network(Protocol):
    """What the state and costate equations ask of a network, group by group (groups count from 0)."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of neurons in each group."""
        ...

    @property
    def activations(self) -> tuple[Activation, ...]:
        """Return the activation of each group."""
        ...

    def weight_shape(self, group: int, /) -> tuple[int, int]:
        """Return the shape of W of a group: neurons × (sources + bias)."""
        ...

    def relative_speed(self, group: int, /) -> Tensor | None:
        """Return c_i/c of each neuron of a group, or None when all are alike."""
        ...

    def source(self, group: int, given: Tensor, activity: tuple[Tensor, ...], /) -> Tensor:
        """Return what feeds a group: u(t), activities, or both side by side."""
        ...

    def pre_activation(self, weight: Tensor, source: Tensor, /) -> Tensor:
        """Return a = W x̃."""
        ...

    def pull_backs(self, weights: tuple[Tensor, ...], cotangents: list[Tensor], /) -> list[Tensor | None]:
        """Return Σ Wᵀ q over the groups that each group feeds; None where it feeds none."""
        ...

    def weight_gradient(self, cotangent: Tensor, source: Tensor, weight: Tensor, /) -> Tensor:
        """Return Σ over samples of q x̃ᵀ on the arcs that are there, for the weights W of this shape."""
        ...

    def output(self, activity: tuple[Tensor, ...], /) -> Tensor:
        """Return the activities that the loss looks at."""
        ...

    def rest_output(self, weights: tuple[Tensor, ...], given: Tensor, /) -> Tensor:
        """Return the output after a long time at a fixed input."""
        ...

    def initial_weights(
        self, seed: int, *, scale: float, dtype: torch.dtype, device: torch.device | str
    ) -> tuple[Tensor, ...]:
        """Draw weights that depend on the seed alone; biases 0."""
        ...

    def spread_output(self, force: Tensor, /) -> list[Tensor | None]:
        """Return a force on the output neurons as a force on each group; None where there is none."""
        ...


def brings_constant(weight: Tensor, source: Tensor) -> bool:
    """Return whether a source is as wide as W: then there is no bias, or its factor is the source's last entry.

    Masked inputs bring the observed fraction μ(m) in the place of the 1.
    """
    return source.shape[-1] == weight.shape[-1]


@dataclass(frozen=True)
class LayeredNetwork:
    """A feed-forward network of given widths.

    Parameters
    ----------
    widths : tuple of int
        Number of inputs, then of neurons in each layer; at least two entries, each at least 1.
    activations : tuple of Activation
        One a layer, so one fewer than ``widths``.
    has_bias : bool
        Whether a constant input of 1 is appended to every layer's input.
    """

    widths: tuple[int, ...]
    activations: tuple[Activation, ...]
    has_bias: bool = True

    @property
    def depth(self) -> int:
        """Return D, the number of layers of neurons."""
        return len(self.widths) - 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of neurons in each layer."""
        return self.widths[1:]

    def relative_speed(self, layer: int) -> Tensor | None:
        """Return None: the neurons of a layer are alike."""
        return None

    def source(self, layer: int, given: Tensor, activity: tuple[Tensor, ...]) -> Tensor:
        """Return u(t) for the first layer, else the activities of the layer before."""
        return activity[layer - 1] if layer else given

    def pull_backs(self, weights: tuple[Tensor, ...], cotangents: list[Tensor]) -> list[Tensor | None]:
        """Return Wᵀ_{l+1} q_{l+1} for each layer; None for the last."""
        later = zip(weights[1:], cotangents[1:], strict=True)
        return [*(self.pull_back(weight, q) for weight, q in later), None]

    def output(self, activity: tuple[Tensor, ...]) -> Tensor:
        """Return the activities of the last layer."""
        return activity[-1]

    def spread_output(self, force: Tensor) -> list[Tensor | None]:
        """Return the force on the last layer, and None for the others."""
        return [*(None for _ in self.sizes[1:]), force]

    def weight_shape(self, layer: int) -> tuple[int, int]:
        """Return the shape of W of a layer (counted from 0): neurons × (sources + bias)."""
        return self.widths[layer + 1], self.widths[layer] + int(self.has_bias)

    def initial_weights(
        self, seed: int, *, scale: float = 1.0, dtype: torch.dtype, device: torch.device | str
    ) -> tuple[Tensor, ...]:
        """Draw weights uniform in ±scale·√(3/fan-in), so of standard deviation scale/√fan-in; biases 0.

        Drawn in float64 on the CPU and then rounded and moved, so every device starts alike.
        """
        weights = []
        for layer in range(self.depth):
            rows, columns = self.weight_shape(layer)
            fan_in = self.widths[layer]
            bound = scale * (3.0 / fan_in) ** 0.5
            drawn = generator(seed, "weight", layer).uniform(-bound, bound, (rows, columns))
            if self.has_bias:
                drawn[:, -1] = 0.0
            weights.append(torch.from_numpy(drawn).to(device=device, dtype=dtype))
        return tuple(weights)

    def pre_activation(self, weight: Tensor, source: Tensor) -> Tensor:
        """Return a = W x̃; shapes ``(..., out, in[+1])`` and ``(..., sample, in)`` give ``(..., sample, out)``.

        Cost: one matrix product.
        """
        if brings_constant(weight, source):
            return source @ weight.mT
        matrix, bias = weight[..., :-1], weight[..., -1]
        if weight.ndim == 2:
            return functional.linear(source, matrix, bias)
        return source @ matrix.mT + bias.unsqueeze(-2)

    def pull_back(self, weight: Tensor, cotangent: Tensor) -> Tensor:
        """Return Wᵀ q without the bias column: q at a layer's pre-activations, carried to its sources.

        Cost: one matrix product.
        """
        return cotangent @ (weight[..., :-1] if self.has_bias else weight)

    def weight_gradient(self, cotangent: Tensor, source: Tensor, weight: Tensor) -> Tensor:
        """Return Σ over samples of q x̃ᵀ, shape of W. Cost: one matrix product."""
        product = cotangent.mT @ source
        if brings_constant(weight, source):
            return product
        return torch.cat((product, cotangent.sum(-2).unsqueeze(-1)), -1)

    def accumulate_gradient_(
        self, total: Tensor, cotangent: Tensor, source: Tensor, *, keep: Constant, add: Constant
    ) -> None:
        """Replace ``total`` by keep·total + add·Σ q x̃ᵀ in place; see :meth:`weight_gradient`.

        Cost: one matrix product and, without ensemble axes, no pass over the weights beside it.
        """
        if total.ndim != 2 or isinstance(keep, Tensor) or isinstance(add, Tensor):
            total.mul_(keep).add_(add * self.weight_gradient(cotangent, source, total))
            return
        brings = brings_constant(total, source)
        matrix = total if brings else total[:, :-1]
        matrix.addmm_(cotangent.T, source, beta=keep, alpha=add)
        if not brings:
            total[:, -1].mul_(keep).add_(cotangent.sum(0), alpha=add)

    def rest_output(self, weights: tuple[Tensor, ...], given: Tensor) -> Tensor:
        """Return the last layer of :meth:`forward`."""
        return self.forward(weights, given)[-1]

    def forward(self, weights: tuple[Tensor, ...], source: Tensor) -> tuple[Tensor, ...]:
        """Return the activities x_l = σ(W_l x̃_{l−1}) of all layers, as signals of infinite speed would."""
        activities = []
        for weight, activation in zip(weights, self.activations, strict=True):
            source = activation.value(self.pre_activation(weight, source))
            activities.append(source)
        return tuple(activities)
