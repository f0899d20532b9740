"""How Sphinx builds the documentation: `make docs`."""

import sys
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from greenpg import version as release  # noqa: E402  the checkout's own, whatever is installed

project = "greenpg"
author = "the greenpg developers"
copyright = f"2026, {author}"
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "plots/*.md"]  # the latter is a part of a page
html_theme = "furo"
html_title = f"greenpg {release}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# Overloads are for type checkers; the pages show the signature that has all parameters.
ModuleAnalyzer.overloads = property(lambda self: {}, lambda self, found: None)

# Names of greenpg must resolve; Python, psycopg2 and the frameworks have manuals of their own.
nitpick_ignore_regex = [(r"py:.*", r"(?!greenpg).*"), (r"py:.*", r".*\._connection_pool\.Conn")]
