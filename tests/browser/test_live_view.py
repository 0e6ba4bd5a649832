"""The live view by hand, in JupyterLab: it moves, it obeys, it ends, and a picture stays."""

from __future__ import annotations

import json
import subprocess
import sys
import time
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
    until,
    until_it_moves,
)
from our_jupyterlab import PATIENCE_MS
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.local, pytest.mark.timeout(1500)]

CELLS = {
    "begin": '''
from ebpflab import Lab
lab = Lab("local")
folder = lab.run(["mktemp", "-d"]).stdout.strip()
code = """
#include <unistd.h>
__attribute__((noinline)) void work(long n) { __asm__ volatile("" : : "r"(n)); }
int main() { for (long n = 1;; n = n * 5 % 1000003) { work(n); usleep(1000); } }
"""
built = lab.run(["gcc", "-O1", "-x", "c", "-o", folder + "/target", "-"], input=code)
assert built.returncode == 0, built.stderr
prog = lab.load("""
#include <uapi/linux/ptrace.h>
struct call { u64 time_ns; u64 size_bytes; char comm[16]; };
BPF_RINGBUF_OUTPUT(calls, 64);
int on_work(struct pt_regs *ctx) {
  struct call call = {.time_ns = bpf_ktime_get_ns(), .size_bytes = PT_REGS_PARM1(ctx)};
  bpf_get_current_comm(&call.comm, sizeof(call.comm));
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
""")
prog.attach_uprobe(name=folder + "/target", sym="work", fn_name="on_work")
target = lab.start([folder + "/target"])
''',
    "live": 'live = prog["calls"].live()\nlive',
    "facts": r"""
import json, threading
probes = f"ls -l /proc/{lab.agent_pid}/fd | grep -c perf_event"
print(json.dumps({
    "attached": prog.attached,
    "probes": int(lab.run(["sh", "-c", probes]).stdout),
    "threads": sum(thread.name == "ebpflab live" for thread in threading.enumerate()),
    "taken": len(prog["calls"].collect()),
}))
""",
    "end": "target.stop()\nlab.run(['rm', '-r', folder])\nlab.close()",
}


def write(path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell(source.strip(), metadata={"name": name})
        for name, source in CELLS.items()
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def facts(page: Page) -> dict[str, object]:
    return dict(json.loads(run_cell(page, "facts")))


def until_nothing_is_left(page: Page) -> None:
    """Until neither thread nor probe is there: a view that has gone may come back for 2 s."""
    wanted = {"attached": [], "probes": 0, "threads": 0}
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while (found := facts(page)) != {**found, **wanted}:
        assert time.monotonic() < deadline, found
        page.wait_for_timeout(200)


def test_the_live_view_by_hand(page: Page, jupyterlab: str, tmp_path: Path) -> None:
    path = tmp_path / "notebooks" / "live.ipynb"
    write(path)
    open_notebook(page, jupyterlab, path.name)
    run_cell(page, "begin")
    run_cell(page, "live")
    view = page.locator(".ebpflab-live")
    until(page, f"() => ({EVENTS_A_SECOND})() > 100")
    until_it_moves(page, "canvas")
    expect(view.locator(".lost")).to_have_text("0 lost")
    expect(view.locator("tr")).to_have_count(11)
    expect(page.locator(".ebpflab-picture")).to_be_hidden()
    running = facts(page)
    assert running["probes"] == 1 and running["threads"] == 1
    assert running["taken"], "the view has not taken the rows that collect hands out"
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        in_theme(page, theme)
        for picture in ("heatmap", "histogram"):
            choose(page, "Picture", picture)
            page.wait_for_timeout(1500)
            page.screenshot(path=tmp_path / f"live-{theme.split()[-1].lower()}-{picture}.png")

    # Stop detaches, start attaches again.
    press(page, "Stop")
    expect(view.locator(".state")).to_have_text("stopped, nothing attached")
    stopped = facts(page)
    assert (stopped["attached"], stopped["probes"]) == ([], 0)
    still = drawn(page, "canvas")
    assert facts(page)["taken"] == 0
    assert drawn(page, "canvas") == still
    press(page, "Start")
    expect(view.locator(".state")).to_have_text("attached")
    until(page, f"() => ({EVENTS_A_SECOND})() > 100")
    assert facts(page)["attached"] == running["attached"]

    # Running the cell again leaves one thread; clearing its output leaves none, and no probe.
    run_cell(page, "live")
    until(page, f"() => ({EVENTS_A_SECOND})() > 100")
    assert facts(page)["threads"] == 1
    page.evaluate(
        """() => {
            const app = window.jupyterapp;
            app.shell.currentWidget.content.activeCellIndex = 1;
            return app.commands.execute("notebook:clear-cell-output");
        }"""
    )
    until_nothing_is_left(page)

    # What it showed last is in the saved notebook, read again where there is no such kernel.
    run_cell(page, "live")
    until(page, f"() => ({EVENTS_A_SECOND})() > 100")
    press(page, "Stop")
    expect(view.locator(".state")).to_have_text("stopped, nothing attached")
    facts(page)  # answered after the button, and so after the picture that it leaves
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    shown(path, tmp_path)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel?.()")
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    open_notebook(page, jupyterlab, path.name)
    page.locator(".ebpflab-picture img").wait_for()
    complaint = page.locator("text=Error displaying widget")
    complaint.wait_for(state="attached")  # JupyterLab has given up on the widget
    expect(complaint).to_be_hidden()
    page.screenshot(path=tmp_path / "live-reopened.png")


def shown(path: Path, folder: Path) -> None:
    """A saved notebook and its export have the picture."""
    outputs = json.loads(path.read_text())["cells"][1]["outputs"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    convert = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", folder, path]
    subprocess.run(convert, check=True, capture_output=True)
    assert "ebpflab-picture" in (folder / "live.html").read_text()
