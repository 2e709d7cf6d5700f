"""Distances between states, and the one way tests compare floats."""

from __future__ import annotations

from typing import Any

import torch

from nlsim.core.state import leaves, map_leaves, named_leaves

EPS = 2.0**-52


def gap(found: Any, expected: Any) -> float:
    """Return the largest absolute difference of any entry."""
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return max(float((f.double() - e.double()).abs().max()) for f, e in pairs)


def size(state: Any) -> float:
    """Return the largest absolute entry."""
    return max(float(leaf.abs().max()) for leaf in leaves(state))


def assert_round_off(found: Any, expected: Any, roundings: float, *, eps: float = EPS) -> None:
    """Demand agreement to ``roundings`` unit round-offs of the largest entry of each tensor (at least of 1)."""
    for (name, f), e in zip(named_leaves(found), leaves(expected), strict=True):
        assert f.shape == e.shape, f"{name}: shape {tuple(f.shape)}, expected {tuple(e.shape)}"
        distance = float((f.double() - e.double()).abs().max())
        limit = roundings * eps * max(1.0, float(e.abs().max()))
        assert distance <= limit, f"{name}: off by {distance:.3g}, allowed {limit:.3g}"


def assert_same_bits(found: Any, expected: Any) -> None:
    for (name, f), e in zip(named_leaves(found), leaves(expected), strict=True):
        assert f.dtype == e.dtype, f"{name}: {f.dtype}, expected {e.dtype}"
        assert torch.equal(f, e), f"{name} differs by up to {float((f - e).abs().max()):.3g}"


def snapshot(state: Any) -> Any:
    """Return a private copy, to see later whether anybody wrote to the original."""
    return map_leaves(lambda leaf: leaf.detach().clone(), state)
