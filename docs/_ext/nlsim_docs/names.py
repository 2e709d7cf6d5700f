"""The public names of nlsim, and which of them have no docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import nlsim

_PRIVATE_PACKAGES = {"cli"}
"""Reached by the command, not by import."""


def module_names() -> list[str]:
    """Return the public modules, packages before their modules."""
    names = [found.name for found in pkgutil.walk_packages(nlsim.__path__, "nlsim.")]
    return ["nlsim", *sorted(name for name in names if _is_public(name))]


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield every public module, class, function, method and property with its full name."""
    for module_name in module_names():
        module = importlib.import_module(module_name)
        yield module_name, module
        for name, thing in vars(module).items():
            is_ours = getattr(thing, "__module__", None) == module_name
            if name.startswith("_") or not is_ours or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            yield f"{module_name}.{name}", thing
            if inspect.isclass(thing):
                yield from _members(f"{module_name}.{name}", thing)


def undocumented() -> list[str]:
    """Return the public names without a docstring of their own."""
    return [name for name, thing in public_objects() if not (_own_docstring(thing) or "").strip()]


def _members(prefix: str, owner: type) -> Iterator[tuple[str, Any]]:
    for name, thing in vars(owner).items():
        if isinstance(thing, staticmethod | classmethod):
            thing = thing.__func__
        if not name.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, property)):
            yield f"{prefix}.{name}", thing


def _own_docstring(thing: Any) -> str | None:
    """Return the docstring, unless Python made it or it is inherited."""
    found: str | None = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if inspect.isclass(thing) and found and found.startswith(f"{thing.__name__}("):
        return None  # what dataclasses write when there is none
    return found


def _is_public(name: str) -> bool:
    parts = name.split(".")[1:]
    return not any(part.startswith("_") for part in parts) and parts[0] not in _PRIVATE_PACKAGES
