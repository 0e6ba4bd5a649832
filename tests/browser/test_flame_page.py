"""Chapter 10's flame graph in JupyterLab: zoomed, searched, saved and found again; and alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from by_hand import code_cells, in_theme, open_notebook, run_all_cells
from playwright.sync_api import FrameLocator, Locator, Page, expect

from ebpflab import Frame, plots

# What leads to the chapter's first picture; the rest of it runs in tests/notebooks.
_CELLS = ("lab", "source", "attach", "run", "names-run", "ours", "flame", "close")


def widths(picture: FrameLocator | Locator) -> dict[str, float]:
    """The width of each function's widest box, in pixels, all at one moment; "" is the page's."""
    return dict(
        picture.locator("#chart").evaluate(
            """chart => {
                const widths = { "": chart.clientWidth };
                for (const frame of chart.querySelectorAll(".frame")) {
                    const name = frame.getAttribute("name");
                    const { width } = frame.querySelector("rect").getBoundingClientRect();
                    widths[name] = Math.max(widths[name] ?? 0, width);
                }
                return widths;
            }"""
        )
    )


def becomes(
    page: Page, picture: FrameLocator | Locator, wanted: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    """Wait until the boxes are as wanted: zooming takes 200 ms, and longer on a busy machine."""
    seen: dict[str, float] = {}
    for _ in range(600):
        seen = widths(picture)
        if wanted(seen):
            return seen
        page.wait_for_timeout(100)
    raise AssertionError(seen)


def zoom_and_search(page: Page, picture: FrameLocator | Locator) -> None:
    """Click the function that takes a fifth of the time, go back, and search for it."""
    picture.locator(".frame[name='reply']").first.wait_for()
    before = becomes(page, picture, lambda seen: abs(seen["all"] - seen[""]) < 1)
    assert 0.1 < before["reply"] / before["main"] < 0.3
    picture.locator(".frame[name='reply']").click()
    becomes(page, picture, lambda seen: abs(seen["reply"] - seen["main"]) < 2)
    picture.get_by_role("button", name="whole picture").click()
    becomes(page, picture, lambda seen: abs(seen["reply"] - before["reply"]) < 2)
    picture.get_by_role("searchbox").fill("REPLY")
    told = picture.get_by_role("status")
    expect(told).to_have_text(re.compile(r"^“REPLY”: [\d.]+ %, [\d,]+ samples$"))
    assert 10 < float(told.inner_text().split()[1]) < 30
    shown = [picture.locator(f".frame[name='{each}'] rect") for each in ("reply", "checksum")]
    lit, other = [each.get_attribute("fill") for each in shown]
    assert lit == "#e86fd0" != other
    picture.get_by_role("searchbox").fill("")
    picture.locator(".frame[name='checksum']").hover()
    expect(told).to_have_text(re.compile(r"^checksum: [\d.]+ %, [\d,]+ samples \(hot\)$"))


def run_until_all_is_kept(page: Page) -> None:
    """Run the cells, again where the hot function's one stack has been lost.

    Its number is a hash, and each run puts the program elsewhere, so one run in a hundred or so
    finds its place taken. The chapter tells the reader to run the cells again.
    """
    for _ in range(3):
        run_all_cells(page)
        cells = code_cells(page)
        assert not [each for cell in cells.values() for each in cell["outputs"] if "ename" in each]
        if "checksum" in str(cells["ours"]["outputs"]):
            return
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    raise AssertionError("checksum was lost three times")


@pytest.mark.browser
@pytest.mark.vm
@pytest.mark.timeout(1500)
def test_in_jupyterlab(page: Page, jupyterlab: str, tmp_path: Path) -> None:
    path = tmp_path / "notebooks" / "10-flame-graphs.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.name in _CELLS]
    nbformat.write(notebook, path)
    open_notebook(page, jupyterlab, path.name)
    run_until_all_is_kept(page)
    picture = page.frame_locator("iframe[title^='hot, 99']")
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        in_theme(page, theme)
        page.locator("iframe[title^='hot, 99']").scroll_into_view_if_needed()
        picture.locator(".frame[name='reply']").wait_for()
        page.screenshot(path=tmp_path / f"{theme.split()[-1].lower()}.png")
    zoom_and_search(page, picture)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    # Until its kernel is there again: before that, JupyterLab may draw an output a second time.
    open_notebook(page, jupyterlab, path.name)
    # And to where it is seen: Chromium stops the clock of an iframe that is not.
    page.locator("iframe[title^='hot, 99']").scroll_into_view_if_needed()
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


@pytest.mark.browser
def test_by_keyboard(page: Page, tmp_path: Path) -> None:
    stacks = [tuple(Frame(name, "user", "hot") for name in ("main", name)) for name in ("a", "b")]
    frame = pd.DataFrame({"stack": stacks, "value": [3_000_000, 1_000_000]})
    page.goto(plots.flame_graph(frame, unit="us").save(tmp_path / "flames.html").as_uri())
    page.locator(".frame[name='a']").wait_for()
    page.get_by_role("button", name="whole picture").focus()
    told = page.get_by_role("status")
    page.keyboard.press("Tab")
    expect(told).to_have_text("all: 100.0 %, 4 s")
    for key, words in (
        ("ArrowUp", "main: 100.0 %, 4 s (hot)"),
        ("ArrowUp", "a: 75.0 %, 3 s (hot)"),  # the widest
        ("ArrowRight", "b: 25.0 %, 1 s (hot)"),
    ):
        page.keyboard.press(key)
        expect(told).to_have_text(words)
    assert page.get_by_role("button", name="b: 25.0 %, 1 s (hot)").count() == 1
    page.keyboard.press("Enter")
    becomes(page, page.locator("body"), lambda seen: abs(seen["b"] - seen["main"]) < 2)
    page.keyboard.press("ArrowDown")
    expect(told).to_have_text("main: 100.0 %, 4 s (hot)")
