"""The chapters' mermaid diagrams, as pictures: JupyterLab draws them, as it does for a reader.

A site that draws them itself would need three megabytes of mermaid from elsewhere; JupyterLab has
it built in. So all diagrams go into one notebook, which is opened once, and what JupyterLab made
of them is kept under ``build/diagrams``, named by the hash of the diagram's text.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util import logging

REPOSITORY = Path(__file__).parents[1]
KEPT = REPOSITORY / "build" / "diagrams"
sys.path.append(str(REPOSITORY / "tests" / "browser"))

_FENCE = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)
_log = logging.getLogger(__name__)


def file_of(diagram: str) -> Path:
    """Where the picture of a diagram is kept."""
    return KEPT / f"{hashlib.sha256(diagram.strip().encode()).hexdigest()[:16]}.svg"


def diagrams_of(notebooks: Iterable[Path]) -> Iterator[str]:
    for path in notebooks:
        for cell in nbformat.read(path, as_version=4).cells:
            yield from _FENCE.findall(cell.source)


def draw(diagrams: list[str]) -> None:
    """Have JupyterLab draw ``diagrams``, and keep the pictures."""
    from our_jupyterlab import browsing, serving

    KEPT.mkdir(parents=True, exist_ok=True)
    cells = [nbformat.v4.new_markdown_cell(f"```mermaid\n{each}\n```") for each in diagrams]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "notebooks").mkdir()
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(notebook, folder / "notebooks" / "diagrams.ipynb")
        with serving(folder / "notebooks", folder) as address, browsing(folder) as page:
            page.goto(address.format("/lab/tree/diagrams.ipynb"))
            pictures = page.locator(".jp-RenderedMermaid img")
            pictures.nth(len(diagrams) - 1).wait_for()
            for diagram, picture in zip(diagrams, pictures.all(), strict=True):
                file_of(diagram).write_bytes(_data(str(picture.get_attribute("src"))))


def _data(url: str) -> bytes:
    """The bytes of a ``data:`` address."""
    head, _, body = url.partition(",")
    return (
        base64.b64decode(body) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
    )


class Mermaid(Directive):
    """A fence of mermaid in a chapter becomes the picture that JupyterLab has drawn of it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        picture = file_of("\n".join(self.content))
        uri = "/" + str(picture.relative_to(REPOSITORY))
        return [nodes.image(uri=uri, alt="\n".join(self.content))]


def prepare(app: Sphinx) -> None:
    missing = [
        diagram
        for diagram in diagrams_of(sorted((REPOSITORY / "notebooks").glob("*.ipynb")))
        if not file_of(diagram).exists()
    ]
    if missing:
        _log.info("drawing %d diagrams with JupyterLab", len(missing))
        draw(missing)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", prepare)
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True}
