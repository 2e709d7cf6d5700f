"""The generated pages: file name -> text."""

from __future__ import annotations

from nlsim_docs.api import api_pages
from nlsim_docs.catalogues import catalogue_page
from nlsim_docs.command_line import command_line_page
from nlsim_docs.schema import schema_page
from nlsim_docs.theorems import theorem_page


def pages() -> dict[str, str]:
    """Return every generated page by its name below ``reference/generated``."""
    return {
        "scenario.md": schema_page(),
        "theorems.md": theorem_page(),
        "catalogues.md": catalogue_page(),
        "command-line.md": command_line_page(),
        **{f"api/{name}": text for name, text in api_pages().items()},
    }
