"""The schema of a scenario: plain validated values, discriminated by ``name``.

These models are the one schema of every system's, signal's, stepper's and recorder's parameters, here for all that
is not in a module of its own: :mod:`~nlsim.scenario.networks`, :mod:`~nlsim.scenario.systems`,
:mod:`~nlsim.scenario.inference`, :mod:`~nlsim.scenario.masked`, :mod:`~nlsim.scenario.masks` and
:mod:`~nlsim.scenario.signals`. They know none of the classes they describe;
:mod:`nlsim.simulation.build` maps model to object.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from nlsim.scenario.inference import Adam as Adam
from nlsim.scenario.inference import BackpropagationProximal as BackpropagationProximal
from nlsim.scenario.inference import BackpropagationSteps as BackpropagationSteps
from nlsim.scenario.inference import ConstantPrecision as ConstantPrecision
from nlsim.scenario.inference import ErrorFormLearning as ErrorFormLearning
from nlsim.scenario.inference import FixedPredictionLearning as FixedPredictionLearning
from nlsim.scenario.inference import Gains as Gains
from nlsim.scenario.inference import GradientDescent as GradientDescent
from nlsim.scenario.inference import ImplicitSGD as ImplicitSGD
from nlsim.scenario.inference import IncrementalLearning as IncrementalLearning
from nlsim.scenario.inference import InferenceLearning as InferenceLearning
from nlsim.scenario.inference import LeastMeanSquares as LeastMeanSquares
from nlsim.scenario.inference import MeanSizeUpdate as MeanSizeUpdate
from nlsim.scenario.inference import NormalisedLeastMeanSquares as NormalisedLeastMeanSquares
from nlsim.scenario.inference import Precision as Precision
from nlsim.scenario.inference import SequentialLearning as SequentialLearning
from nlsim.scenario.inference import StepPrecision as StepPrecision
from nlsim.scenario.inference import Update as Update
from nlsim.scenario.inference import ZeroDivergence as ZeroDivergence
from nlsim.scenario.masked import MaskedEnergy as MaskedEnergy
from nlsim.scenario.masked import MaskedNeuron as MaskedNeuron
from nlsim.scenario.masked import NeuMiss as NeuMiss
from nlsim.scenario.masked import Responder as Responder
from nlsim.scenario.masks import Mask as Mask
from nlsim.scenario.masks import MissingValues as MissingValues
from nlsim.scenario.masks import Outage as Outage
from nlsim.scenario.masks import Outages as Outages
from nlsim.scenario.masks import RandomMask as RandomMask
from nlsim.scenario.masks import Reliability as Reliability
from nlsim.scenario.networks import Graph as Graph
from nlsim.scenario.networks import Layers as Layers
from nlsim.scenario.networks import Network as Network
from nlsim.scenario.signals import PatchedCosine as PatchedCosine
from nlsim.scenario.signals import Samples as Samples
from nlsim.scenario.signals import Series as Series
from nlsim.scenario.signals import Signal as Signal
from nlsim.scenario.signals import SineTarget as SineTarget
from nlsim.scenario.signals import Sinusoids as Sinusoids
from nlsim.scenario.signals import Target as Target
from nlsim.scenario.systems import CostateReversal as CostateReversal
from nlsim.scenario.systems import Flip as Flip
from nlsim.scenario.systems import Follower as Follower
from nlsim.scenario.systems import HamiltonEquations as HamiltonEquations
from nlsim.scenario.systems import HamiltonianLearning as HamiltonianLearning
from nlsim.scenario.systems import HeavyBall as HeavyBall
from nlsim.scenario.systems import Learner as Learner
from nlsim.scenario.systems import Learning as Learning
from nlsim.scenario.systems import LinearQuadratic as LinearQuadratic
from nlsim.scenario.systems import PeriodicFlip as PeriodicFlip
from nlsim.scenario.systems import System as System
from nlsim.scenario.systems import TrackBall as TrackBall
from nlsim.scenario.systems import Tracking as Tracking
from nlsim.scenario.value import Count, Finite, Model, NonNegative, Positive


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
    """A quantity to record, chosen entries of it, or a number made of them."""

    name: str
    """Name of the quantity, such as activity/2; ``*`` stands for any characters, ``?`` for one: ``weight/*``."""
    select: dict[str, Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]] = Field({})
    """Dimension → indices to keep, counted from 0; dimensions not named are kept whole."""
    reduce: Literal["norm", "mean", "histogram"] | None = None
    """What the entries are made into; the channel is then called NAME/norm, NAME/mean, NAME/histogram."""
    over: list[str] = Field([])
    """Dimensions that norm and mean are taken over; all of them when none is named."""
    bins: list[Finite] = Field([])
    """Edges of the bins of a histogram, increasing; entries outside are not counted."""
    every: Positive | None = None
    """Distance of its own times, a multiple of record.every [time]; at the others it is NaN."""

    @field_validator("select")
    @classmethod
    def _are_distinct(cls, select: dict[str, list[int]]) -> dict[str, list[int]]:
        twice = [dim for dim, chosen in select.items() if len(set(chosen)) != len(chosen)]
        if twice:
            raise ValueError(f"each index once; twice in: {', '.join(twice)}")
        return select

    @model_validator(mode="after")
    def _reduce_fits(self) -> Channel:
        if (self.reduce == "histogram") != bool(self.bins):
            raise ValueError("bins, at least two edges, with reduce = 'histogram' and only there")
        if self.bins and (len(self.bins) < 2 or any(not low < high for low, high in pairwise(self.bins))):
            raise ValueError("bins that increase, at least two edges")
        if self.over and self.reduce not in ("norm", "mean"):
            raise ValueError("over with reduce = 'norm' or 'mean' only")
        return self

    @property
    def recorded_name(self) -> str:
        """Return the name under which it is recorded, wildcards as they are."""
        return f"{self.name}/{self.reduce}" if self.reduce else self.name


class Record(Model):
    """What is written down, and when."""

    every: Positive
    """Distance of record times [time]; the end of the run is recorded besides."""
    channels: Annotated[list[str | Channel], Field(min_length=1)] = Field(["loss"])
    """Names of quantities, or tables with a selection; names may have wildcards."""
    window: list[Window] = Field([])
    """Stretches recorded more finely."""
    at: list[NonNegative] = Field([])
    """Single record times besides [time]."""
    dtype: Literal["same", "float32"] = "same"
    """Precision of the numbers in the file; float32 halves that of a float64 run, whose checkpoint stays exact."""
    compression: Annotated[int, Field(ge=0, le=9)] = 0
    """How hard arrays are packed: 0 not at all (but channels with times of their own, lightly), 9 as small as deflate
    can, slowly."""

    @field_validator("channels")
    @classmethod
    def _are_distinct(cls, channels: list[str | Channel]) -> list[str | Channel]:
        names = [each if isinstance(each, str) else each.recorded_name for each in channels]
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
    mask: Mask | None = None
    """What is seen of the inputs, and when; all of them without it."""
    stepper: Stepper
    """How it is stepped."""
    numerics: Numerics = Numerics()
    """Device and precision."""
    record: Record
    """What is written down."""
