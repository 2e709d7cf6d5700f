"""The schema of what is seen of the inputs: sensors that fall silent or fade, and entries missing at random."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nlsim.scenario.value import Count, Finite, Model, NonNegative, Positive, Vector

Sensor = Annotated[int, Field(ge=0)]


class Outage(Model):
    """A time during which sensors say nothing."""

    sensors: Literal["all"] | Annotated[list[Sensor], Field(min_length=1)]
    """Which inputs, counted from 0, or all of them: a blackout."""
    start: NonNegative
    """First instant without them [time]."""
    stop: Positive
    """First instant with them again [time]."""

    @model_validator(mode="after")
    def _takes_time(self) -> Outage:
        if not self.start < self.stop:
            raise ValueError(f"start before stop; from {self.start:g} to {self.stop:g}")
        return self


class _Seen(Model):
    """What all masks have in common."""

    groups: Annotated[list[Count], Field(min_length=1)] | None = None
    """How many neighbouring inputs each source variable has, e.g. [1, 3] for a number and a one-hot category of three;
    left out, each has one. Variables carry equal shares of the biases, and are drawn as a whole by a random mask."""


class Outages(_Seen):
    """Whole sensors that fall silent for a while, for all samples alike."""

    name: Literal["outages"]
    """Which mask."""
    outages: Annotated[list[Outage], Field(min_length=1)]
    """When, and which; they may overlap."""


class RandomMask(_Seen):
    """Entries missing completely at random, drawn anew at every interval of the mask."""

    name: Literal["random"]
    """Which mask."""
    rate: Annotated[float, Field(ge=0, le=1)]
    """ρ, the probability that an entry is observed."""
    interval: Positive
    """How long a draw lasts [time]."""
    each: Literal["sample", "sensor"] = "sample"
    """Whether each sample has draws of its own, or a sensor drops out for all samples at once."""


Part = Annotated[float, Field(ge=0, le=1)]
_Each = NonNegative | Annotated[list[NonNegative], Field(min_length=1)]


class Reliability(_Seen):
    """A soft mask that moves smoothly: an input is relied upon to the degree m(t) = level + amplitude sin(ωt + φ)."""

    name: Literal["reliability"]
    """Which mask."""
    level: Part | Annotated[list[Part], Field(min_length=1)]
    """Mean of m, one number or one per input; level ± amplitude lie within 0 (missing) and 1 (observed)."""
    amplitude: _Each = 0.0
    """By how much m rises and falls, one number or one per input."""
    frequency: _Each = 1.0
    """Angular frequency ω, one number or one per input [1/time]."""
    phase: Finite | Vector | None = None
    """φ, one number or one per input; left out: drawn from the seed, one per input."""


class MissingValues(_Seen):
    """What the data set itself does not have; the other masks hide those values as well."""

    name: Literal["missing_values"]
    """Which mask."""


Mask = Annotated[Outages | RandomMask | Reliability | MissingValues, Field(discriminator="name")]
