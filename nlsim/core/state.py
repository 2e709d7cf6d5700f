"""States are trees of tensors: a frozen dataclass whose fields are tensors or tuples of tensors.

The trees are those of ``torch.func`` (its registry is the one used here), so a state can be
differentiated, vmapped and flattened by torch itself. A bare tensor, a tuple or a dict of tensors is
a state too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import torch
from torch.utils import _pytree as pytree

S = TypeVar("S")
C = TypeVar("C")


@dataclass_transform(frozen_default=True)
def state_class(cls: type[C]) -> type[C]:
    """Make a class a frozen dataclass that torch treats as a tree of tensors."""
    frozen = dataclasses.dataclass(frozen=True)(cls)
    pytree.register_dataclass(frozen)
    return frozen


def map_leaves(function: Callable[..., torch.Tensor], state: S, *others: Any) -> S:
    """Apply a function to corresponding tensors of one or more states of the same shape of tree."""
    mapped: S = pytree.tree_map(function, state, *others)
    return mapped


def leaves(state: Any) -> list[torch.Tensor]:
    """Return the tensors of a state in a fixed order."""
    flat: list[torch.Tensor] = pytree.tree_leaves(state)
    return flat


def rebuild(state: S, flat: list[torch.Tensor]) -> S:
    """Put tensors (in the order of :func:`leaves`) into a state of the same shape of tree."""
    rebuilt: S = pytree.tree_unflatten(flat, pytree.tree_structure(state))
    return rebuilt


def clone(state: S) -> S:
    """Return a private copy whose tensors a stepper may write to."""
    return map_leaves(torch.clone, state)


def named_leaves(state: Any) -> list[tuple[str, torch.Tensor]]:
    """Return ``("activity/1", tensor)`` pairs; the entries of a tuple count from 1, like layers."""
    return [(_path_name(path), leaf) for path, leaf in pytree.tree_flatten_with_path(state)[0]]


def _path_name(path: tuple[Any, ...]) -> str:
    parts = []
    for key in path:
        match key:
            case pytree.SequenceKey(idx):
                parts.append(str(idx + 1))
            case pytree.GetAttrKey(name):
                parts.append(str(name))
            case pytree.MappingKey(name):
                parts.append(str(name))
    return "/".join(parts) or "state"


def norm(state: Any) -> torch.Tensor:
    """Return the Euclidean norm over all tensors of a state, as a 0-d tensor on its device; 0 for a state of none."""
    if not leaves(state):
        return torch.zeros(())
    sizes = torch.stack([torch.linalg.vector_norm(leaf) for leaf in leaves(state)])
    total: torch.Tensor = torch.linalg.vector_norm(sizes)
    return total


def first_bad_leaf(state: Any) -> str | None:
    """Name the first tensor that holds NaN or infinity, or return None (one host read if all is well)."""
    named = named_leaves(state)
    # a sum is NaN or infinite as soon as one entry is; one small read instead of one per tensor
    total = torch.stack([leaf.sum().to(torch.float64) for _, leaf in named]).sum()
    if bool(torch.isfinite(total)):
        return None
    for name, leaf in named:
        if not bool(torch.isfinite(leaf).all()):
            return name
    return None  # the sum overflowed although every entry is finite
