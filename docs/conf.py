"""The site: Sphinx, MyST, furo. Nothing is fetched, neither by the build nor by a reader's browser."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from nlsim import __version__

# numpydoc also reads the docstrings of what our modules import
warnings.filterwarnings("ignore", message="(?s)Unknown section .*hypothesis")

project = "nlsim"
author = "the authors of nlsim"
project_copyright = "the authors of nlsim"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinxcontrib.bibtex",
    "nlsim_docs",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
# without other projects' inventories only our own names can be looked up
nitpick_ignore_regex = [("py:.*", r"(?!nlsim\.).*"), ("py:.*", r"nlsim\..*\.([A-Z](_in)?|Value)")]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
numpydoc_show_class_members = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"

html_theme = "furo"
html_title = f"nlsim {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
