"""The kinds of values that a scenario holds: bounded numbers, names, and tables that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


# bounds that no study needs to cross, so that no product of two of these numbers overflows in float32
def _is_not_tiny(value: float) -> float:
    if value < 1e-18:
        raise ValueError("at least 1e-18")
    return value


Positive = Annotated[float, Field(gt=0, le=1e18, allow_inf_nan=False), AfterValidator(_is_not_tiny)]
NonNegative = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Vector = Annotated[list[Finite], Field(min_length=1)]
Matrix = Annotated[list[Vector], Field(min_length=1)]
ActivationName = Literal["tanh", "logistic", "softplus", "relu", "identity"]


class Model(BaseModel):
    """Frozen values; unknown keys are refused, and numbers are not made from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
