"""Chapters 08, 09 and 11 in JupyterLab, cell by cell: pointed at, clicked, pressed, looked at.

What each cell answers is tested in tests/notebooks; here only those run that lead to something
that a hand can touch. Chapter 10's flame graph is in test_flame_page.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from by_hand import (
    EVENTS_A_SECOND,
    choose,
    drawn,
    in_theme,
    open_notebook,
    press,
    run_cell,
    shown,
    until,
    until_it_moves,
)
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.vm, pytest.mark.timeout(1500)]


def pictures(page: Page, folder: Path, cell: str) -> None:
    """For who wants to look at what the test saw, in both themes."""
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        in_theme(page, theme)
        shown(page, cell).scroll_into_view_if_needed()
        page.screenshot(path=folder / f"{cell}-{theme.split()[-1].lower()}.png")


def test_chapter_08_a_bar_tells_its_number(page: Page, jupyterlab: str, tmp_path: Path) -> None:
    open_notebook(page, jupyterlab, "08-perf-events.ipynb")
    for cell in ("lab", "book-source", "book-repaired", "book-run", "typed-source", "typed-run"):
        run_cell(page, cell)
    expect(shown(page, "typed-run").locator("table.dataframe tbody tr")).to_have_count(6)
    run_cell(page, "typed-plot")
    plot = shown(page, "typed-plot")
    plot.locator("rect").first.hover()
    expect(plot.locator("output")).to_have_text("/bin/ls: 3 starts (50 %)")
    pictures(page, tmp_path, "typed-plot")
    run_cell(page, "close")


def test_chapter_09_a_click_shows_the_rows_of_a_bar(
    page: Page, jupyterlab: str, tmp_path: Path
) -> None:
    open_notebook(page, jupyterlab, "09-histograms.ipynb")
    for cell in ("lab", "reads-source", "workload", "ship-run", "ship-plot", "heatmap-raw"):
        run_cell(page, cell)
    for cell in ("ship-plot", "heatmap-raw"):
        plot = shown(page, cell)
        plot.locator("rect").first.hover()
        expect(plot.locator("output")).to_have_text(re.compile(r"\d reads?\b|^1 read\b"))
        pictures(page, tmp_path, cell)
    run_cell(page, "linked")
    plot = shown(page, "linked")
    bars, rows = plot.locator("rect"), plot.locator("tbody tr")
    expect(rows).to_have_count(0)
    for bar in (bars.first, bars.last):
        bar.click()
        told = re.search(r"the first (\d+) of ([\d,]+) rows", plot.locator("output").inner_text())
        wanted = int(told[1]) if told else rows.count()
        assert wanted > 0
        expect(rows).to_have_count(wanted)
    pictures(page, tmp_path, "linked")
    run_cell(page, "close")


PROBES = (
    'probes = f"ls -l /proc/{lab.agent_pid}/fd | grep -c perf_event"\n'
    'print(prog.attached == [], lab.run(["sh", "-c", probes]).stdout)'
)


def test_chapter_11_the_dashboard_obeys(page: Page, jupyterlab: str, tmp_path: Path) -> None:
    path = tmp_path / "notebooks" / "11-live.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBES, metadata={"name": "probes"}))
    nbformat.write(notebook, path)
    open_notebook(page, jupyterlab, path.name)
    for cell in ("lab", "workload-start", "source", "calls", "tables", "board"):
        run_cell(page, cell)
    until(page, f"() => ({EVENTS_A_SECOND})() > 0")
    views = page.locator(".ebpflab-live")
    expect(views).to_have_count(4)  # the stream's is there twice: by itself, and on the board
    until(page, "() => document.querySelectorAll('.ebpflab-live tr').length >= 11")
    until_it_moves(page, "canvas")
    expect(views.first.locator(".heat")).to_be_hidden()
    choose(page, "Picture", "heatmap")
    expect(views.first.locator(".heat")).to_be_visible()
    expect(views.last.locator(".heat")).to_be_visible()  # the same view
    assert run_cell(page, "probes").split() == ["False", "2"]
    pictures(page, tmp_path, "board")

    press(page, "Stop")
    for view in views.all():
        expect(view.locator(".state")).to_have_text("stopped, nothing attached")
    assert run_cell(page, "probes").split() == ["True", "0"]
    still = drawn(page, "canvas")
    page.wait_for_timeout(1000)
    assert drawn(page, "canvas") == still
    press(page, "Start")
    for view in views.all():
        expect(view.locator(".state")).to_have_text("attached")
    assert run_cell(page, "probes").split() == ["False", "2"]
    run_cell(page, "close")
    expect(page.locator(".ebpflab-live")).to_have_count(0)
