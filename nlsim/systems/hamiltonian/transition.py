"""State networks ĥ = f̂(u, h, θ) and their derivatives in closed form.

Hamiltonian Learning moves a state h by dh/dt = c (f̂(u, h, θ) − h) (Melacci et al., eq. 3 and 9). What f̂ is
decides what a neuron of the state is: in a *layered* transition every neuron of a network is a state and
reads its neighbours' states, in a *whole* transition the output of a whole network is the state, and its
hidden layers are passed in no time.

Every function accepts leading ensemble axes on weights and activities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nlsim.systems.network import LayeredNetwork

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Passed:
    """A forward pass, with what is needed to pull cotangents q at its result back through it.

    Attributes
    ----------
    value : tuple of Tensor
        The result, part by part, each ``(..., sample, neuron)``.
    to_activity : callable
        From one q a part of the result, ∂(Σ q · result)/∂h, part by part.
    to_weight : callable
        From the same, ∂(Σ q · result)/∂θ, layer by layer, summed over samples.
    """

    value: Tensors
    to_activity: Callable[[Tensors], Tensors]
    to_weight: Callable[[Tensors], Tensors]


def pass_through(network: LayeredNetwork, weights: Tensors, source: Tensor) -> Passed:
    """Pass a source, which stands for h here, through all layers of a network in no time.

    Cost: one matrix product a layer, one more to pull back to the source, two more (one for the first) to
    pull back to the weights.
    """
    sources, slopes = [], []
    x = source
    for weight, activation in zip(weights, network.activations, strict=True):
        sources.append(x)
        a = network.pre_activation(weight, x)
        x = activation.value(a)
        slopes.append(activation.slope(a, x))

    def to_source(cotangents: Tensors) -> Tensors:
        (cotangent,) = cotangents
        for weight, slope in zip(reversed(weights), reversed(slopes), strict=True):
            cotangent = network.pull_back(weight, cotangent * slope)
        return (cotangent,)

    def to_weight(cotangents: Tensors) -> Tensors:
        (cotangent,) = cotangents
        gradients: list[Tensor] = []
        for layer in reversed(range(network.depth)):
            at_neurons = cotangent * slopes[layer]
            gradients.insert(0, network.weight_gradient(at_neurons, sources[layer], weights[layer]))
            if layer:
                cotangent = network.pull_back(weights[layer], at_neurons)
        return tuple(gradients)

    return Passed((x,), to_source, to_weight)


class Transition(Protocol):
    """A state network f̂(u, h, θ); h is a tuple of parts."""

    @property
    def network(self) -> LayeredNetwork:
        """Return the network whose weights θ are."""
        ...

    @property
    def input_width(self) -> int:
        """Return the number of inputs u."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the number of neurons of each part of h."""
        ...

    def propose(self, weights: Tensors, source: Tensor, activity: Tensors, /) -> Passed:
        """Return f̂(u, h, θ), part by part, with its pull-backs to all parts of h and to θ."""
        ...


@dataclass(frozen=True)
class LayeredTransition:
    """Every layer is a part of the state: f̂_l = σ(W_l h̃_{l−1}), h_0 = u.

    These are the neurons of Betti & Gori (eq. 7): signals advance one layer in a time 1/c.

    Parameters
    ----------
    network : LayeredNetwork
        The layers.
    """

    network: LayeredNetwork

    @property
    def input_width(self) -> int:
        """Return the number of inputs u."""
        return self.network.widths[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the width of each layer."""
        return self.network.widths[1:]

    def propose(self, weights: Tensors, source: Tensor, activity: Tensors) -> Passed:
        """Return σ(W_l h̃_{l−1}) for every layer; cost: one matrix product a layer, and one a pull-back."""
        network = self.network
        sources = (source, *activity[:-1])
        values, slopes = [], []
        for weight, activation, x in zip(weights, network.activations, sources, strict=True):
            a = network.pre_activation(weight, x)
            values.append(activation.value(a))
            slopes.append(activation.slope(a, values[-1]))

        def to_activity(cotangents: Tensors) -> Tensors:
            later = zip(weights[1:], cotangents[1:], slopes[1:], strict=True)
            pulled = [network.pull_back(weight, q * slope) for weight, q, slope in later]
            return (*pulled, torch.zeros_like(activity[-1]))

        def to_weight(cotangents: Tensors) -> Tensors:
            each = zip(cotangents, slopes, sources, weights, strict=True)
            return tuple(network.weight_gradient(q * slope, x, w) for q, slope, x, w in each)

        return Passed(tuple(values), to_activity, to_weight)


@dataclass(frozen=True)
class WholeTransition:
    """The output of a whole network is the state: f̂ = N(u, h), or N(u) without memory.

    With memory and one layer it is the simple recurrent network σ(W [u, h, 1]).

    Parameters
    ----------
    network : LayeredNetwork
        N; its input is u followed by h if it has memory.
    has_memory : bool
        Whether N reads h.
    """

    network: LayeredNetwork
    has_memory: bool = True

    @property
    def input_width(self) -> int:
        """Return the number of inputs u."""
        return self.network.widths[0] - (self.network.widths[-1] if self.has_memory else 0)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the number of neurons of the only part."""
        return self.network.widths[-1:]

    def propose(self, weights: Tensors, source: Tensor, activity: Tensors) -> Passed:
        """Return N; cost: that of :func:`pass_through`, without memory nothing to pull back to h."""
        if not self.has_memory:
            passed = pass_through(self.network, weights, source)
            return Passed(passed.value, lambda _: (torch.zeros_like(activity[0]),), passed.to_weight)
        passed = pass_through(self.network, weights, join(source, activity[0]))
        return Passed(
            passed.value,
            lambda cotangents: (passed.to_activity(cotangents)[0][..., self.input_width :],),
            passed.to_weight,
        )


def join(source: Tensor, activity: Tensor) -> Tensor:
    """Return (u, h) along the last axis, u repeated over the ensemble axes of h and the other way round."""
    leading = torch.broadcast_shapes(source.shape[:-1], activity.shape[:-1])  # type: ignore[no-untyped-call]
    return torch.cat((source.expand(*leading, -1), activity.expand(*leading, -1)), -1)
