"""What each browser test gets: the chapters in a JupyterLab, and a page to open them in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from our_jupyterlab import browsing, serving
from playwright.sync_api import Page

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def jupyterlab(tmp_path: Path) -> Iterator[str]:
    """The address of a running JupyterLab, up to where a path and the token go: ``{}``."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    with serving(tmp_path / "notebooks", tmp_path, EBPFLAB_TARGET="vm") as address:
        yield address


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A tab in a Chromium that knows nothing."""
    with browsing(tmp_path) as page:
        yield page
