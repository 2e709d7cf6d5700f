"""What the site writes itself: pages made from the code, a check of docstrings, and formulas as MathML."""

from __future__ import annotations

import re
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    from nlsim_docs import mathml

    mathml.add_renderer(app)
    app.connect("builder-inited", write_pages)
    app.connect("builder-inited", warn_of_undocumented)
    app.connect("autodoc-process-docstring", escape_bars, priority=400)  # before numpydoc
    app.connect("autodoc-process-signature", hide_fields)
    app.connect("autodoc-skip-member", leave_out_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app: Sphinx) -> None:
    """Write the generated pages; an unchanged page keeps its file, so that Sphinx need not read it again."""
    from nlsim_docs.pages import pages

    folder = Path(app.srcdir) / "reference" / "generated"
    wanted = {folder / name: text for name, text in pages().items()}
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def escape_bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape the bars of |W|: reStructuredText takes them for substitutions, and we have none."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        lines[number] = "".join(part if part.startswith("``") else part.replace("|", "\\|") for part in parts)


def hide_fields(app: Sphinx, what: str, name: str, thing: Any, *rest: Any) -> tuple[str, None] | None:
    """Leave the fields of a scenario's models out of their signatures: they follow one by one, with their meaning."""
    from nlsim.scenario.model import Model

    return ("", None) if what == "class" and issubclass(thing, Model) else None


def leave_out_aliases(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out names of types such as tuple[Tensor, ...]: they are no classes, though Sphinx reads them as such."""
    return True if isinstance(thing, GenericAlias) else None


def warn_of_undocumented(app: Sphinx) -> None:
    """Warn, and so fail the build, for every public name without a docstring."""
    from sphinx.util import logging

    from nlsim_docs.names import undocumented

    for name in undocumented():
        logging.getLogger(__name__).warning("undocumented public name: %s", name)
