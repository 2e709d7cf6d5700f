"""A small run with every kind of channel, and what its frames hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlsim.record import ChannelSpec, RunWriter

SEED = 20240

SPECS = (
    ChannelSpec("loss", long_name="loss L", units="nat"),
    ChannelSpec("weight/1", ("to_1", "from_1"), (3, 4), np.dtype("float32")),
    ChannelSpec("activity/2", ("sample", "layer_2"), (2, 5)),
    ChannelSpec("count", ("ensemble",), (7,), np.dtype("int64")),
    ChannelSpec("flag", (), (), np.dtype("uint8")),
    ChannelSpec("picked", ("sample", "layer_2"), (2, 3), coordinates={"layer_2": np.array([4, 0, 2])}),
)


@dataclass(frozen=True)
class Recorded:
    """A file and what was put into it."""

    path: Path
    times: np.ndarray
    values: dict[str, np.ndarray]


def frames_of(specs: tuple[ChannelSpec, ...], count: int, seed: int = SEED) -> dict[str, np.ndarray]:
    """Random values of every channel, shape ``(count, *shape)``, the whole range of integers included."""
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for spec in specs:
        shape = (count, *spec.shape)
        if spec.dtype.kind == "f":
            values[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        else:
            info = np.iinfo(spec.dtype)
            values[spec.name] = rng.integers(info.min, info.max, shape, spec.dtype, endpoint=True)
    return values


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Recorded]:
    """Write a run of the small channels and end it."""

    def write(
        count: int = 11,
        specs: tuple[ChannelSpec, ...] = SPECS,
        attributes: dict[str, Any] | None = None,
        ending: str = "reached_end",
        name: str = "run.nc",
        **options: Any,
    ) -> Recorded:
        values = frames_of(specs, count)
        times = np.cumsum(np.random.default_rng(SEED + 1).uniform(0.1, 1.0, count))
        checkpoint = options.get("checkpoint")
        with RunWriter(tmp_path / name, specs, attributes or {}, **options) as writer:
            for i, t in enumerate(times):
                writer.append(t, {k: v[i] for k, v in values.items()})
            writer.close(ending, checkpoint=checkpoint)
        return Recorded(tmp_path / name, times, values)

    return write
