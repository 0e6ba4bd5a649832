"""Pictures as HTML: what they say to who cannot see them, and the rows behind a bar."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from ebpflab import plots
from ebpflab.errors import PlotError

STARTS = pd.DataFrame({"comm": ["sh", "find", "sh", "</script><b>"], "pid": [500, 501, 502, 503]})


class Tags(HTMLParser):
    """The tags of a page, and the texts of its titles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title":
            self.titles.append(data)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def page_of(ax: Any) -> str:
    return ax.get_figure()._repr_html_()  # type: ignore[no-any-return]


def data_of(shown: Any) -> Any:
    page = shown._repr_mimebundle_()["text/html"]
    Tags(page)
    found = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_picture_is_told_to_who_cannot_see_it() -> None:
    ax = plots.counts(STARTS, by="comm", title="Who <starts>?")
    tags = Tags(page_of(ax))
    (image,) = [attrs for tag, attrs in tags.seen if tag == "img"]
    assert image["alt"] == f"Who <starts>? {plots.reading(ax)}"
    assert plots.reading(ax) == "sh: 2 of 4 rows (50 %); none of the 3 has more."
    assert tags.titles[0] == "sh: 2 rows (50 %)"


def test_a_page_needs_no_network() -> None:
    page = page_of(plots.counts(STARTS, by="comm"))
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(""", page)


def test_each_box_is_inside_of_the_picture() -> None:
    page = page_of(plots.counts(STARTS, by="comm"))
    sizes = re.search(r'viewBox="0 0 (\d+) (\d+)"', page)
    assert sizes is not None
    wide, high = map(int, sizes.groups())
    boxes = re.findall(r'<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)">', page)
    assert len(boxes) == 3
    for x, y, width, height in (map(float, box) for box in boxes):
        assert x >= 0 and x + width <= wide and y >= 0 and y + height <= high and height > 10


def test_an_empty_picture_has_nothing_to_point_at() -> None:
    tags = Tags(page_of(plots.counts(STARTS.iloc[:0], by="comm")))
    assert [tag for tag, _ in tags.seen] == ["figure", "style", "span", "img"]


def test_a_bar_knows_its_rows() -> None:
    data = data_of(plots.linked(plots.counts(STARTS, by="comm")))
    assert data["columns"] == ["comm", "pid"]
    rows = [[data["rows"][row][1] for row in spot["rows"]] for spot in data["spots"]]
    assert rows == [["500", "502"], ["503"], ["501"]]


def test_rows_are_capped_and_small_bars_keep_theirs() -> None:
    frame = pd.DataFrame({"comm": ["dd"] * 5000 + ["cat"] * 7})
    data = data_of(plots.linked(plots.counts(frame, by="comm"), most=100))
    assert len(data["rows"]) == 100
    kept = [(len(spot["rows"]), spot["of"]) for spot in data["spots"]]
    assert kept == [(93, 5000), (7, 7)]


def test_every_picture_of_raw_rows_can_be_linked() -> None:
    frame = pd.DataFrame(
        {
            "time_ns": range(0, 97_000, 1000),
            "latency_ns": range(1, 98),
            "cpu": [n % 3 for n in range(97)],
        }
    )
    spans = {"start": "time_ns", "duration": "latency_ns"}
    for ax in (
        plots.counts(frame, by="cpu"),
        plots.histogram(frame, column="latency_ns"),
        plots.histogram(frame, column="latency_ns", by="cpu"),
        plots.histogram(frame, column="latency_ns", by="cpu", overlay=True),
        plots.histogram(frame["latency_ns"]),
        plots.heatmap(frame),
        plots.timeline(frame, lane="cpu", **spans),
    ):
        data = data_of(plots.linked(ax))
        found = sorted(row for spot in data["spots"] for row in spot["rows"])
        assert found == list(range(97))
        assert not plt.fignum_exists(ax.get_figure().number)


def test_what_the_kernel_counted_has_no_rows() -> None:
    counted = pd.DataFrame({"comm": ["dd"], "value": [7]})
    with pytest.raises(PlotError, match="the kernel counted"):
        plots.linked(plots.counts(counted, by="comm", values="value"))
    _, ax = plt.subplots()
    with pytest.raises(PlotError, match="axes of your own"):
        plots.linked(plots.counts(STARTS, by="comm", ax=ax))


def test_nothing_linked_is_a_picture_too() -> None:
    shown = plots.linked(plots.counts(STARTS.iloc[:0], by="comm"))
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert bundle["text/plain"] == "<Linked: No rows.>"
