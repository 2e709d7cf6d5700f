"""What the site writes itself: pages made from the code, a check of docstrings, and formulas as MathML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    from nlsim_docs import mathml

    mathml.add_renderer(app)
    app.connect("builder-inited", write_pages)
    app.connect("builder-inited", warn_of_undocumented)
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


def warn_of_undocumented(app: Sphinx) -> None:
    """Warn, and so fail the build, for every public name without a docstring."""
    from sphinx.util import logging

    from nlsim_docs.names import undocumented

    for name in undocumented():
        logging.getLogger(__name__).warning("undocumented public name: %s", name)
