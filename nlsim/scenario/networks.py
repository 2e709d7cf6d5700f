"""The schema of what learns: layered networks and networks on directed graphs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from nlsim.scenario.value import ActivationName, Count, Model, Positive


class Layers(Model):
    """A layered network."""

    layers: Annotated[list[Count], Field(min_length=2)]
    """Number of inputs, then of neurons in each layer, e.g. [64, 32, 10]."""
    activation: ActivationName = "tanh"
    """Activation of the hidden layers."""
    output_activation: ActivationName = "tanh"
    """Activation of the last layer."""
    loss: Literal["squared_error", "cross_entropy"] = "squared_error"
    """Loss of the output; cross_entropy contains the softmax, so combine it with identity."""
    bias: bool = True
    """Whether every layer has a constant input of 1."""
    weight_scale: Positive = 1.0
    """Initial weights are uniform with standard deviation weight_scale/√fan-in; biases are 0."""


class Graph(Model):
    """A network on a directed graph, cycles and self-loops included; chosen by the key `arcs`."""

    inputs: Annotated[int, Field(ge=0)]
    """Number of inputs, the vertices 0 to inputs − 1."""
    neurons: Count
    """Number of neurons, the vertices after the inputs."""
    arcs: list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]] | Literal["all"]
    """[from, to] for each arc, or "all" for every arc into a neuron, self-loops included."""
    outputs: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    """Neurons that the loss looks at, by vertex."""
    activation: ActivationName = "tanh"
    """Activation of every neuron."""
    loss: Literal["squared_error", "cross_entropy"] = "squared_error"
    """Loss of the outputs."""
    bias: bool = False
    """Whether every neuron has a constant input of 1."""
    weight_scale: Positive = 1.0
    """Initial weights are uniform with standard deviation weight_scale/√parents; biases are 0."""


def _kind(network: Any) -> str:
    """Tell the two kinds of network apart by the key that only graphs have."""
    has_arcs = "arcs" in network if isinstance(network, dict) else isinstance(network, Graph)
    return "digraph" if has_arcs else "layered"


Network = Annotated[Annotated[Layers, Tag("layered")] | Annotated[Graph, Tag("digraph")], Discriminator(_kind)]
