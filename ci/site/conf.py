"""Settings of Sphinx for the documentation site: `ci/docs` builds it.

The whole repository is the source, so that links of the pages lead where they lead in the
repository: to READMEs of rooms, to examples.
"""

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sphinx.application import Sphinx  # noqa: E402

from runsc import __version__  # noqa: E402  of the tree

project = "runsc"
version = release = __version__
copyright = "the developers of runsc, Apache License 2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
]
default_role = "code"  # of docstrings
root_doc = "docs/index"
ROOMS = ("benchmarks", "ci", "examples", "gofer", "guest_stubs", "kvm", "runsc", "sentry", "tests")
include_patterns = [
    "*.md",
    "docs/**.md",
    *(f"{room}/**README.md" for room in ROOMS),
]
exclude_patterns = ["README.md", "build"]
nitpicky = True
highlight_language = "none"
smartquotes = False  # a command's help has --flags in its sentences

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
copybutton_prompt_text = r"\$ |> "
copybutton_prompt_is_regexp = True

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["agents", "inspect_ai", "pydantic"]
"""Frameworks that runsc.providers is for."""
nitpick_ignore_regex = [("py:.*", ".*")]  # types of signatures, most of them the standard library's

html_theme = "furo"
html_title = "runsc"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False


def _as_typed(_app: object, _context: object, lines: list[str]) -> None:
    """What a command's help shows as it is typed, below a \\b, is a literal block."""
    made = []
    for is_typed, group in groupby(lines, lambda line: line.startswith("| ")):
        words = [line.removeprefix("| ") for line in group]
        if is_typed:
            title = words.pop(0) if words[0].endswith(":") else ":"
            words = [f"{title}:", "", *(f"    {line}" for line in words), ""]
        made += words
    lines[:] = made


def setup(app: Sphinx) -> None:
    """Sphinx asks for it."""
    app.connect("sphinx-click-process-description", _as_typed)
