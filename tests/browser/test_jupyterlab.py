"""Chapter 01 by hand: opened in JupyterLab, Run All Cells, looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from by_hand import code_cells, in_theme, open_notebook, run_all_cells
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(1500)]


def test_chapter_01_runs_by_hand(page: Page, jupyterlab: str, tmp_path: Path) -> None:
    open_notebook(page, jupyterlab, "01-kprobes.ipynb")
    run_all_cells(page)
    cells = code_cells(page)
    failed = {
        name: output["evalue"]
        for name, cell in cells.items()
        for output in cell["outputs"]
        if output["output_type"] == "error"
    }
    assert failed == {}

    # The diagram, the table of starts, and the pictures are on the page.
    page.locator(".jp-RenderedMermaid svg, .jp-RenderedMermaid img").first.wait_for()
    table = page.locator(".jp-RenderedHTMLCommon table.dataframe", has_text="/usr/bin/wc").first
    table.wait_for()
    assert table.locator("tbody tr").count() >= 6 + 3
    pictures = page.locator(".jp-OutputArea-output img[src^='data:image/png']")
    expect(pictures).to_have_count(4)

    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        in_theme(page, theme)
        shade = theme.split()[-1].lower()
        for number in range(pictures.count()):
            picture = pictures.nth(number)
            picture.scroll_into_view_if_needed()
            box = picture.bounding_box()
            assert box is not None and box["width"] > 400
            page.screenshot(path=tmp_path / f"{shade}-{number}.png")
        table.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / f"{shade}-table.png")
        page.locator(".jp-RenderedMermaid").first.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / f"{shade}-top.png")
