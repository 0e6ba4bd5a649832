"""Chapter 10's flame graph in JupyterLab: zoomed, searched, saved and found again; and alone."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from playwright.sync_api import FrameLocator, Locator, Page
from test_jupyterlab import code_cells, in_theme, open_notebook, run_all_cells

from ebpflab import Frame, plots

# What leads to the chapter's first picture; the rest of it runs in tests/notebooks.
_CELLS = ("lab", "source", "attach", "run", "names-run", "ours", "flame", "close")


def box(picture: FrameLocator | Locator, name: str) -> float:
    """The width of a function's box, in pixels."""
    found = picture.locator(f".frame[name='{name}'] rect").bounding_box()
    return found["width"] if found else 0


def settled(page: Page) -> None:
    page.wait_for_timeout(600)  # zooming takes 200 ms to be drawn


def zoom_and_search(page: Page, picture: FrameLocator | Locator) -> None:
    """Click the function that takes a fifth of the time, go back, and search for it."""
    picture.locator(".frame[name='reply']").first.wait_for()
    settled(page)
    before = box(picture, "reply")
    assert 0.1 < before / box(picture, "main") < 0.3
    picture.locator(".frame[name='reply']").click()
    settled(page)
    assert box(picture, "reply") == pytest.approx(box(picture, "main"), abs=2)
    picture.get_by_role("button", name="whole picture").click()
    settled(page)
    assert box(picture, "reply") == pytest.approx(before, abs=2)
    picture.get_by_role("searchbox").fill("REPLY")
    told = picture.get_by_role("status")
    found = re.match(r"“REPLY”: ([\d.]+) %, ([\d,]+) samples$", told.inner_text())
    assert found and 10 < float(found[1]) < 30
    shown = [picture.locator(f".frame[name='{each}'] rect") for each in ("reply", "checksum")]
    lit, other = [each.get_attribute("fill") for each in shown]
    assert lit == "#e86fd0" != other
    picture.get_by_role("searchbox").fill("")
    picture.locator(".frame[name='checksum']").hover()
    assert re.match(r"checksum: [\d.]+ %, [\d,]+ samples \(hot\)$", told.inner_text())


@pytest.mark.browser
@pytest.mark.vm
@pytest.mark.timeout(600)
def test_in_jupyterlab(page: Page, jupyterlab: str, tmp_path: Path) -> None:
    path = tmp_path / "notebooks" / "10-flame-graphs.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.name in _CELLS]
    nbformat.write(notebook, path)
    open_notebook(page, jupyterlab, path.name)
    run_all_cells(page)
    cells = code_cells(page)
    failed = [each for cell in cells.values() for each in cell["outputs"] if "ename" in each]
    assert failed == []
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        in_theme(page, theme)
        page.locator("iframe[title^='hot, 99']").scroll_into_view_if_needed()
        settled(page)
        page.screenshot(path=tmp_path / f"{theme.split()[-1].lower()}.png")
    picture = page.frame_locator("iframe[title^='hot, 99']")
    zoom_and_search(page, picture)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.reload()
    page.locator("iframe[title^='hot, 99']").wait_for(state="attached")
    zoom_and_search(page, picture)


@pytest.mark.browser
def test_a_file_of_its_own(page: Page, tmp_path: Path) -> None:
    names = [("main", "serve", name) for name in ("checksum", "parse", "reply")]
    stacks = [tuple(Frame(name, "user", "hot") for name in each) for each in names]
    frame = pd.DataFrame({"stack": stacks, "value": [700, 100, 200], "comm": "hot"})
    path = plots.flame_graph(frame, title="hot").save(tmp_path / "flames.html")
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    zoom_and_search(page, page.locator("body"))
    assert asked == [path.as_uri()] and complaints == []
