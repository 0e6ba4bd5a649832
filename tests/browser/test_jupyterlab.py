"""Chapter 01 by hand: opened in JupyterLab, Run All Cells, looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(600)]

_RUN_ALL_SECONDS = 400
_NOTEBOOK = "window.jupyterapp.shell.currentWidget"


def code_cells(page: Page) -> dict[str, Any]:
    """The code cells of the open notebook, by name."""
    cells = page.evaluate(f"() => {_NOTEBOOK}.context.model.toJSON().cells")
    return {cell["metadata"]["name"]: cell for cell in cells if cell["cell_type"] == "code"}


def open_notebook(page: Page, address: str, name: str) -> None:
    page.goto(address.format(f"/lab/tree/{name}"))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.wait_for_function(f"() => {_NOTEBOOK}.sessionContext.session?.kernel?.status === 'idle'")


def run_all_cells(page: Page) -> None:
    """By the menu, as a reader does; returns when every cell has run."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    page.wait_for_function(
        f"""() => {{
            const cells = {_NOTEBOOK}.context.model.toJSON().cells;
            const code = cells.filter(cell => cell.cell_type === "code");
            const failed = code.some(cell => cell.outputs.some(o => o.output_type === "error"));
            return failed || code.every(cell => cell.execution_count);
        }}""",
        timeout=_RUN_ALL_SECONDS * 1000,
        polling=1000,  # not at each frame: the processors are for the guest
    )


def in_theme(page: Page, theme: str) -> None:
    page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme
    )
    page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")


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
    assert table.locator("tbody tr").count() >= 6 + 3
    pictures = page.locator(".jp-OutputArea-output img[src^='data:image/png']")
    assert pictures.count() == 4

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
