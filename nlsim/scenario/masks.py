"""The schema of what is seen of the inputs: sensors that fall silent, and entries missing at random."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nlsim.scenario.value import Model, NonNegative, Positive

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


class Outages(Model):
    """Whole sensors that fall silent for a while, for all samples alike."""

    name: Literal["outages"]
    """Which mask."""
    outages: Annotated[list[Outage], Field(min_length=1)]
    """When, and which; they may overlap."""


class RandomMask(Model):
    """Entries missing completely at random, drawn anew at every interval of the mask."""

    name: Literal["random"]
    """Which mask."""
    rate: Annotated[float, Field(ge=0, le=1)]
    """ρ, the probability that an entry is observed."""
    interval: Positive
    """How long a draw lasts [time]."""
    each: Literal["sample", "sensor"] = "sample"
    """Whether each sample has draws of its own, or a sensor drops out for all samples at once."""


class MissingValues(Model):
    """What the data set itself does not have; the other masks hide those values as well."""

    name: Literal["missing_values"]
    """Which mask."""


Mask = Annotated[Outages | RandomMask | MissingValues, Field(discriminator="name")]
