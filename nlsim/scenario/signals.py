"""The schema of what drives a system: samples, time series, smooth inputs, and targets to be followed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlsim.scenario.value import Count, Model, NonNegative, Positive


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
    scaled: bool = False
    """Whether all inputs are divided by the standard deviation of the training inputs, feature by feature."""


class Series(Model):
    """A time series of real sensors, record after record, each held for an interval; no target."""

    name: Literal["series"]
    """Which signal."""
    series: str
    """Name of a time series, see `nlsim list datasets`."""
    interval: Positive
    """How long a record is held [time]."""
    training: Annotated[int, Field(ge=2)]
    """How many records lie before the start of the run; their mean, deviation and covariance are known."""
    centred: bool = False
    """Whether the mean of the training records is subtracted, channel by channel."""
    scaled: bool = False
    """Whether all records are divided by the standard deviation of the training records, channel by channel."""


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


class SineTarget(Model):
    """A target to follow, z = A sin ωt, the same for every output, and no input."""

    name: Literal["sine_target"]
    """Which signal."""
    amplitude: NonNegative = 1.0
    """A; 0 holds the target at 0."""
    frequency: Positive
    """Angular frequency ω [1/time]."""


class PatchedCosine(Model):
    """A target that is hard to predict: pieces of cosines patched with constants, drawn from the seed; no input.

    Even intervals show A cos ωt, each with a frequency of its own for each output; odd intervals a constant.
    """

    name: Literal["patched_cosine"]
    """Which signal."""
    amplitude: NonNegative = 1.0
    """A; constants are uniform in ±A."""
    lowest_frequency: Positive
    """Least angular frequency [1/time]."""
    highest_frequency: Positive
    """Largest angular frequency [1/time]; frequencies are uniform in between."""
    interval: Positive
    """How long each piece lasts [time]."""


Target = SineTarget | PatchedCosine
"""Signals with nothing but a target."""

Signal = Annotated[Samples | Series | Sinusoids | Target, Field(discriminator="name")]
