"""The live view's script alone, without a JupyterLab: what it says to who cannot see it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from ebpflab.live.history import History
from ebpflab.live.sources import Look, log2_label
from ebpflab.live.widget import View

pytestmark = pytest.mark.browser

# What anywidget does: a module's default export, a model, an element.
_RENDER = """async (code) => {
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    const widget = (await import(address)).default(), model = { get: () => "key", send: () => {} };
    model.on = (_, hear) => {
        window.tell = (words, packed) => hear(words, packed ? [new DataView(
            Uint8Array.from(atob(packed), (each) => each.charCodeAt(0)).buffer)] : []);
    };
    widget.initialize({ model });
    widget.render({ model, el: document.getElementById("view") });
}"""


def frame(**words: object) -> list[object]:
    """A message as `Live` sends it: values in all buckets, most of them in that of 1.02 µs."""
    history = History(65)
    for n in range(300):
        counts = np.ones(65, np.int64)
        counts[11] = 100
        history.add(n / 10, 0.1, Look(int(counts.sum()), 0, counts))
    drawn = history.frame(30)
    told: dict[str, Any] = {
        **{"runs": True, "said": "", "rate": 1640, "events": 49200, "lost": 0, "window": 30},
        "points": len(drawn.ends_s),
        "picture": "histogram",
        "of": "latency_ns",
        "labels": [log2_label(bucket, "ns") for bucket in range(66)],
        "columns": ["comm"],
        "rows": [["<img src=x onerror=alert(1)>"], ["x" * 300]],
    }
    return [{**told, **words}, base64.b64encode(drawn.pack()).decode()]


@pytest.fixture
def view(page: Page) -> Page:
    page.set_viewport_size({"width": 320, "height": 900})
    page.set_content(f"<style>{View._css}</style><body><div id='view'></div>")
    page.evaluate(_RENDER, View._esm)
    return page


def tell(page: Page, message: list[object]) -> None:
    page.evaluate("([words, packed]) => window.tell(words, packed)", message)


def test_the_pictures_are_told_to_who_cannot_see_them(view: Page) -> None:
    for picture in ("histogram", "heatmap"):
        tell(view, frame(picture=picture))
        words = f"{picture} of latency_ns in the last 30 seconds"
        most = ": the most, 30,000, from 1.02 µs to 2.05 µs"
        expect(view.get_by_role("img", name=words + most)).to_be_visible()
    rates = "events per second in the last 30 seconds: 1,640 to 1,640"
    expect(view.get_by_role("img", name=rates)).to_be_visible()
    expect(view.get_by_role("status")).to_have_text("attached")
    expect(view.get_by_role("columnheader")).to_have_text("comm")
    view.keyboard.press("Tab")  # rows that are wider than the page scroll by the keyboard
    expect(view.get_by_role("region", name="the last rows")).to_be_focused()


def test_a_narrow_page_is_not_widened_and_names_are_text(view: Page) -> None:
    tell(view, frame())
    expect(view.locator("td").first).to_have_text("<img src=x onerror=alert(1)>")
    assert view.evaluate("() => document.documentElement.scrollWidth") <= 320
    assert view.locator("canvas").first.evaluate("each => each.clientWidth") <= 320


def test_what_went_wrong_comes_alone_and_leaves_the_picture(view: Page) -> None:
    complaints: list[str] = []
    view.on("pageerror", lambda error: complaints.append(str(error)))
    wrong = {"runs": False, "rate": 0, "said": "ZeroDivisionError: <b>"}
    tell(view, [wrong, None])
    expect(view.get_by_role("alert")).to_have_text("ZeroDivisionError: <b>")
    tell(view, frame())
    expect(view.get_by_role("alert")).to_have_count(0)
    tell(view, [wrong, None])
    expect(view.get_by_role("status")).to_have_text("stopped, nothing attached")
    expect(view.locator("td")).to_have_count(2)
    assert complaints == []
