"""What a reader does with a notebook in JupyterLab: open it, run cells, change the theme."""

from __future__ import annotations

from typing import Any

from our_jupyterlab import PATIENCE_MS
from playwright.sync_api import Locator, Page

_RUN_ALL_SECONDS = 1200
_NOTEBOOK = "window.jupyterapp.shell.currentWidget"


def code_cells(page: Page) -> dict[str, Any]:
    """The code cells of the open notebook, by name."""
    cells = page.evaluate(f"() => {_NOTEBOOK}.context.model.toJSON().cells")
    return {cell["metadata"]["name"]: cell for cell in cells if cell["cell_type"] == "code"}


def open_notebook(page: Page, address: str, name: str) -> None:
    page.goto(address.format(f"/lab/tree/{name}"))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.wait_for_function(f"() => {_NOTEBOOK}.sessionContext.session?.kernel?.status === 'idle'")


def place(page: Page, name: str) -> int:
    """Where the cell of a name stands in the open notebook."""
    names = page.evaluate(
        f"() => {_NOTEBOOK}.context.model.toJSON().cells.map(cell => cell.metadata.name)"
    )
    return [*names].index(name)


def shown(page: Page, name: str) -> Locator:
    """What is below the cell of a name."""
    cell = page.locator(".jp-Notebook .jp-Cell").nth(place(page, name))
    return cell.locator(".jp-Cell-outputWrapper")


def run_cell(page: Page, name: str) -> str:
    """Run one cell, as a click on it and Ctrl+Enter do; what it printed, and its result as text."""
    page.evaluate(
        f"""async number => {{
            const notebook = {_NOTEBOOK}.content;
            notebook.activeCellIndex = number;
            notebook.deselectAll();
            await window.jupyterapp.commands.execute("notebook:run-cell");
        }}""",
        place(page, name),
    )
    outputs = code_cells(page)[name]["outputs"]
    errors = [output["evalue"] for output in outputs if output["output_type"] == "error"]
    assert errors == [], name
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return "".join("".join(text) for text in texts)


def run_all_cells(page: Page) -> None:
    """By the menu; returns when every cell has run, or one has failed."""
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


# -- the live view -------------------------------------------------------------------------------

EVENTS_A_SECOND = (
    r"() => Number(document.querySelector('.ebpflab-live b').textContent.replaceAll(',', ''))"
)


def until(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=PATIENCE_MS)


def press(page: Page, button: str) -> None:
    page.locator(".jupyter-button", has_text=button).first.click()


def choose(page: Page, control: str, value: str) -> None:
    dropdown = page.locator(".widget-dropdown", has_text=control).first
    dropdown.locator("select").select_option(value)


def drawn(page: Page, canvas: str) -> str:
    """What is on a canvas of the view, as data."""
    return str(page.locator(f".ebpflab-live {canvas}").first.evaluate("it => it.toDataURL()"))


def until_it_moves(page: Page, canvas: str) -> None:
    """Until something else is on a canvas of the view than is there now."""
    page.wait_for_function(
        """([canvas, before]) => document.querySelector(canvas).toDataURL() !== before""",
        arg=[f".ebpflab-live {canvas}", drawn(page, canvas)],
        timeout=PATIENCE_MS,
    )
