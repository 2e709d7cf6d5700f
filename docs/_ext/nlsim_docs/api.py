"""The pages on Python modules: one page a package, made of autodoc directives."""

from __future__ import annotations

import nlsim
from nlsim_docs.names import module_names

_FRONT = """\
``nlsim``
=========

.. automodule:: nlsim

"""


def api_pages() -> dict[str, str]:
    """Return the pages in reStructuredText, the language of the docstrings."""
    public = [name for name in nlsim.__all__ if not name.startswith("_")]
    front = _FRONT + "\n".join(f".. autofunction:: nlsim.{name}\n" for name in public)
    packages: dict[str, list[str]] = {}
    for name in module_names():
        if name != "nlsim":
            packages.setdefault(name.split(".")[1], []).append(name)
    return {"nlsim.rst": front, **{f"{package}.rst": _page(names) for package, names in packages.items()}}


def _page(modules: list[str]) -> str:
    first, *rest = modules
    title = f"``{first}``"
    parts = [f"{title}\n{'=' * len(title)}\n\n.. automodule:: {first}\n   :members:\n"]
    for name in rest:
        title = f"``{name}``"
        parts.append(f"{title}\n{'-' * len(title)}\n\n.. automodule:: {name}\n   :members:\n")
    return "\n".join(parts)
