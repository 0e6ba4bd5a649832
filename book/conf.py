"""The book: every chapter executed, with its real outputs, as a site that needs no network.

`make book` runs sphinx with the repository as its source, so that chapters and documents are read
where they lie. A chapter that fails, and any warning of sphinx, fails the build.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ebpflab import vm
from ebpflab.errors import TargetError
from ebpflab.targets import choose

sys.path.insert(0, str(Path(__file__).parent))

project = "ebpflab"
author = "the ebpflab authors"
copyright = "the ebpflab authors, Apache-2.0"
language = "en"

extensions = ["myst_nb", "diagrams", "sphinx.ext.autodoc"]
root_doc = "book/index"
include_patterns = [
    "book/index.md",
    "book/api.md",
    "CHANGELOG.md",
    "notebooks/*.ipynb",
    "docs/*.md",
    "docs/images/*",
]

# Chapters run one after the other, against the target that Lab() finds: two guests at once would
# disturb each other's timings on a small machine.
nb_execution_mode = "force"
nb_execution_timeout = 300  # seconds for a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
# A live widget needs a kernel; the site shows what the widget left in its place.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", 1000),
]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
# Docstrings put `one` backtick around a name of ours, and ``two`` around everything else.
default_role = "code"
autodoc_typehints = "none"  # the signatures have them
autodoc_member_order = "bysource"
autodoc_mock_imports = ["bcc"]  # the system's own Python has it

# Where the set-up could build no guest, Lab() would try again in each chapter.
try:
    _name = choose("auto")[0].name
except TargetError:
    _name = ""
if not _name or (_name == "vm" and not any(image.current for image in vm.images())):
    os.environ["EBPFLAB_TARGET"] = "replay"


def setup(app: Any) -> None:
    """Tell each chapter its name, as Jupyter's server does: a recording is found by it."""

    def tell(_: Any, document: str, __: list[str]) -> None:
        os.environ["JPY_SESSION_NAME"] = f"{document}.ipynb"

    app.connect("source-read", tell)


templates_path = ["templates"]
html_additional_pages = {"index": "redirect.html"}  # the book's own index is a folder below
html_theme = "sphinx_book_theme"
html_title = "Tracing with BPF"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "use_download_button": False,
    "navbar_persistent": [],  # one search field is enough: the sidebar's
}
