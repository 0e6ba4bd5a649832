"""The gallery: what chapters draw in the VM, as PNG in ``docs/images/gallery``.

    make book && EBPFLAB_TARGET=vm .venv/bin/python book/gallery.py

README and docs/gallery.md show it. A picture is taken as it is out of the chapter that `make book`
has run, and is named after chapter and cell: white paper in either theme. What lives in the page
(the rows of a bar, a flame graph that is zoomed, a live view) is photographed in JupyterLab, light
and dark: the first two from the same run, the live view from a new one of chapter 11.
"""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page

REPOSITORY = Path(__file__).parents[1]
EXECUTED = REPOSITORY / "build" / "jupyter_execute" / "notebooks"
GALLERY = REPOSITORY / "docs" / "images" / "gallery"
sys.path.append(str(REPOSITORY / "tests" / "browser"))

PICTURES = {
    "01-kprobes": ("tree",),
    "08-perf-events": ("typed-plot",),
    "09-histograms": (
        *("ship-plot", "sum-run", "calls-run", "disk-run", "heatmap-raw", "grid-run"),
        *("timeline", "timeline-cpus"),
    ),
    "11-live": ("calls",),
    "10-flame-graphs": ("flame", "go", "repaired", "off-cpu", "small"),
}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


def take_pictures() -> None:
    """Every PNG of `PICTURES`, out of the executed chapters."""
    for chapter, cells in PICTURES.items():
        notebook = nbformat.read(EXECUTED / f"{chapter}.ipynb", as_version=4)
        by_name = {cell.metadata.name: cell for cell in notebook.cells}
        for name in cells:
            (png,) = [
                output.data["image/png"]
                for output in by_name[name].outputs
                if "image/png" in output.get("data", {})
            ]
            (GALLERY / f"{chapter[:2]}-{name}.png").write_bytes(base64.b64decode(png))


def photograph(page: Page, place: Locator, name: str) -> None:
    """A part of the page, in both themes."""
    from by_hand import in_theme

    for shade, theme in THEMES.items():
        in_theme(page, theme)
        place.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)  # until a live view has drawn itself in the new colours
        place.screenshot(path=GALLERY / f"{name}-{shade}.png")


def text_and_rows(page: Page) -> None:
    """The text form, and a bar that has been clicked."""
    from by_hand import shown

    photograph(page, shown(page, "book-run"), "09-text")
    linked = shown(page, "linked")
    linked.locator("rect").nth(1).click()
    page.mouse.move(0, 0)  # or the pointer marks a bar as well
    photograph(page, linked, "09-linked")


def flames(page: Page) -> None:
    """A flame graph in which one has searched, and one that is zoomed."""
    from by_hand import shown

    for cell, name, act in (
        ("flame", "10-searched", lambda graph: graph.get_by_role("searchbox").fill("reply")),
        ("off-cpu", "10-zoomed", lambda graph: graph.locator(".frame[name='nap']").click()),
    ):
        output = shown(page, cell)
        output.scroll_into_view_if_needed()
        act(output.frame_locator("iframe"))
        photograph(page, output, name)


def live_view(page: Page) -> None:
    """Chapter 11, run cell by cell."""
    from by_hand import choose, run_cell, shown

    for cell in ("lab", "workload-start", "source", "calls", "tables", "board"):
        run_cell(page, cell)
    page.wait_for_timeout(12_000)  # something to see in the window of time
    photograph(page, shown(page, "calls"), "11-histogram")
    choose(page, "Picture", "heatmap")
    photograph(page, shown(page, "board"), "11-board")
    run_cell(page, "close")


def trust(page: Page) -> None:
    """What a reader says to a notebook that somebody else has run."""
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.forEach("
        "cell => { cell.model.trusted = true; })"
    )


def visit(chapter: str, act: Callable[[Page], None], *, run: bool = False) -> None:
    """Open a chapter in JupyterLab, as `make book` left it, or to be ``run``."""
    from by_hand import open_notebook
    from our_jupyterlab import browsing, serving

    source = (REPOSITORY / "notebooks" if run else EXECUTED) / f"{chapter}.ipynb"
    with tempfile.TemporaryDirectory(prefix="ebpflab-") as name:
        folder = Path(name)
        (folder / "notebooks").mkdir()
        shutil.copy(source, folder / "notebooks")
        with serving(folder / "notebooks", folder) as address, browsing(folder) as page:
            page.set_viewport_size({"width": 1200, "height": 1600})  # all of a picture at once
            open_notebook(page, address, source.name)
            trust(page)
            act(page)


def main() -> None:
    if not EXECUTED.exists():
        raise SystemExit(f"No chapters have been run in {EXECUTED}: run `make book` first.")
    shutil.rmtree(GALLERY, ignore_errors=True)
    GALLERY.mkdir(parents=True)
    take_pictures()
    visit("09-histograms", text_and_rows)
    visit("10-flame-graphs", flames)
    visit("11-live", live_view, run=True)
    print(f"{len([*GALLERY.iterdir()])} pictures in {GALLERY.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
