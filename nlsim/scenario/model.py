"""The schema of a scenario: plain validated values, discriminated by ``name``.

These models are the one schema of every system's, signal's, stepper's and recorder's parameters. They
know none of the classes they describe; :mod:`nlsim.simulation.build` maps model to object.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator


# bounds that no study needs to cross, so that no product of two of these numbers overflows in float32
def _is_not_tiny(value: float) -> float:
    if value < 1e-18:
        raise ValueError("at least 1e-18")
    return value


Positive = Annotated[float, Field(gt=0, le=1e18, allow_inf_nan=False), AfterValidator(_is_not_tiny)]
NonNegative = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
ActivationName = Literal["tanh", "logistic", "softplus", "relu", "identity"]


class Model(BaseModel):
    """Frozen values; unknown keys are refused, and numbers are not made from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


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


class Learning(Model):
    """What both systems of states and costates have in common."""

    network: Network
    """What learns."""
    speed: Positive | Annotated[list[Positive], Field(min_length=1)]
    """Propagation speed c, one number, or one per layer (of a graph: per neuron) [1/time]."""
    mass: Positive = 1.0
    """Inertia m of the weights."""
    dissipation: NonNegative = 0.0
    """θ = φ̇/φ [1/time]."""
    regularisation: NonNegative = 0.0
    """Weight k of the regulariser |W|²/2."""


class CostateReversal(Learning):
    """Hamiltonian learning with the costates run forward; becomes backpropagation as speed → ∞."""

    name: Literal["costate_reversal"]
    """Which system."""


class HamiltonEquations(Learning):
    """The exact Hamilton equations as an initial-value problem; blows up at about rate c (a control)."""

    name: Literal["hamilton_equations"]
    """Which system."""


class HeavyBall(Model):
    """Gradient flow with inertia: the limit of infinite speed. Under a sweep stepper it is SGD with momentum."""

    name: Literal["heavy_ball"]
    """Which system."""
    network: Network
    """What learns."""
    mass: Positive = 1.0
    """Inertia m of the weights."""
    dissipation: NonNegative = 0.0
    """θ [1/time]."""
    regularisation: NonNegative = 0.0
    """Weight k of the regulariser |W|²/2."""


System = Annotated[CostateReversal | HamiltonEquations | HeavyBall, Field(discriminator="name")]


class Samples(Model):
    """A stream of mini-batches of a data set, each held for an interval; targets are one-hot."""

    name: Literal["samples"]
    """Which signal."""
    dataset: str
    """Name of a data set, see `nlsim list datasets`."""
    batch: Count = 1
    """Samples shown together."""
    interval: Positive
    """How long a batch is held [time]."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of samples kept for testing, chosen by the seed."""
    centred: bool = False
    """Whether the mean of the training inputs is subtracted from all inputs."""


class Sinusoids(Model):
    """Inputs and targets that move smoothly: sinusoids of one frequency, with phases drawn from the seed."""

    name: Literal["sinusoids"]
    """Which signal."""
    samples: Count = 1
    """Independent samples shown together."""
    frequency: Positive = 1.0
    """Angular frequency of inputs and targets [1/time]."""
    amplitude: NonNegative = 1.0
    """Amplitude of the inputs; targets have half of it."""


Signal = Annotated[Samples | Sinusoids, Field(discriminator="name")]


class FixedStep(Model):
    """A stepper with a fixed step."""

    name: Literal[
        "explicit_euler",
        "heun",
        "rk4",
        "implicit_sweep",
        "exponential_sweep",
        "exponential_euler",
        "etdrk2",
        "etdrk4",
        "sdirk2",
        "implicit_midpoint",
        "gauss4",
        "symplectic_euler",
        "symplectic_euler_adjoint",
        "stormer_verlet",
        "conformal_midpoint",
        "conformal_verlet",
        "ordered_euler",
        "ordered_euler_old",
    ]
    """Which method, see `nlsim list steppers`."""
    dt: Positive
    """Step [time]."""


class Adaptive(Model):
    """Adaptive explicit Runge–Kutta of torchdiffeq."""

    name: Literal["adaptive"]
    """Which method."""
    method: Literal["dopri5", "dopri8", "bosh3", "adaptive_heun"] = "dopri5"
    """Which pair of formulas."""
    rtol: Positive = 1e-6
    """Relative tolerance of the local error; at least five roundings of the dtype."""
    atol: Positive = 1e-9
    """Absolute tolerance of the local error."""
    min_step: NonNegative = 0.0
    """A rejected step of this length or less ends the run [time]."""
    norm: Literal["max", "rms"] = "max"
    """Whether the worst entry or the root mean square decides the step."""


Stepper = Annotated[FixedStep | Adaptive, Field(discriminator="name")]


class Numerics(Model):
    """Where and how precisely to compute."""

    device: str = "cpu"
    """A torch device such as cpu, cuda or cuda:0."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of every tensor; times are always float64."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of one tensor operation; more than one pays only for big layers."""


class Window(Model):
    """A stretch of time recorded more finely."""

    start: NonNegative
    """First record time [time]."""
    stop: Positive
    """Last record time [time]."""
    every: Positive
    """Distance of record times [time]."""


class Channel(Model):
    """A quantity to record, or chosen entries of it."""

    name: str
    """Name of the quantity, such as activity/2."""
    select: dict[str, Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]] = {}
    """Dimension → indices to keep, counted from 0; dimensions not named are kept whole."""

    @field_validator("select")
    @classmethod
    def _are_distinct(cls, select: dict[str, list[int]]) -> dict[str, list[int]]:
        twice = [dim for dim, chosen in select.items() if len(set(chosen)) != len(chosen)]
        if twice:
            raise ValueError(f"each index once; twice in: {', '.join(twice)}")
        return select


class Record(Model):
    """What is written down, and when."""

    every: Positive
    """Distance of record times [time]; the end of the run is recorded besides."""
    channels: Annotated[list[str | Channel], Field(min_length=1)] = ["loss"]
    """Names of quantities, or tables with a selection."""
    window: list[Window] = []
    """Stretches recorded more finely."""

    @field_validator("channels")
    @classmethod
    def _are_distinct(cls, channels: list[str | Channel]) -> list[str | Channel]:
        names = [each if isinstance(each, str) else each.name for each in channels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each channel once; twice: {', '.join(twice)}")
        return channels


class Scenario(Model):
    """Everything that fixes a run."""

    title: str = ""
    """One line for a person."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides initial weights, the split and the order of samples."""
    until: Positive
    """End of the run; it starts at 0 [time]."""
    max_steps: Count | None = None
    """End the run after so many steps."""
    system: System
    """What moves."""
    signal: Signal
    """What drives it."""
    stepper: Stepper
    """How it is stepped."""
    numerics: Numerics = Numerics()
    """Device and precision."""
    record: Record
    """What is written down."""
