"""Flame graphs: shares, what is left out, and what other tools are given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ebpflab import Frame, plots
from ebpflab.plots.stack_tree import tree_of

MAIN, HOT = Frame("main", "user", "hot"), Frame("checksum", "user", "hot")
READ = Frame("vfs_read", "kernel", "kernel")


def stacks(*rows: tuple[tuple[Any, ...], int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["stack", "value"]).assign(comm="hot")


SEVENTY = stacks(((MAIN, HOT), 70), ((MAIN, READ), 20), ((MAIN,), 10))


def facts(graph: plots.FlameGraph) -> dict[str, Any]:
    """What the page is told."""
    found = re.search(r'id="data">(.*?)</script>', graph.html(), re.DOTALL)
    assert found
    return dict(json.loads(found.group(1)))


def test_a_node_has_the_value_of_all_stacks_through_it() -> None:
    tree = facts(plots.flame_graph(SEVENTY))["tree"]
    assert (tree["name"], tree["value"]) == ("all", 100)
    (hot,) = tree["children"]
    (main,) = hot["children"]
    assert (hot["name"], hot["k"], main["value"], main["m"]) == ("hot", "process", 100, "hot")
    assert {each["name"]: (each["value"], each["k"]) for each in main["children"]} == {
        "checksum": (70, "user"),
        "vfs_read": (20, "kernel"),
    }


def test_what_is_narrower_than_a_pixel_is_counted() -> None:
    small = [((MAIN, Frame(f"f{n}", "user", "")), 1) for n in range(601)]
    graph = plots.flame_graph(stacks(((MAIN, HOT), 2_000_000), *small))
    assert "601 functions narrower than a pixel are not drawn (0.0 %)." in graph.words
    three = stacks(((MAIN, HOT), 90), ((MAIN, READ), 7), ((READ, HOT, HOT), 2), ((READ, HOT), 1))
    root, pruned = tree_of(three, least=10.0)
    assert pruned == (4, 10)
    assert root.depth() == 4 and len(root.children) == 1


def test_functions_without_a_name_are_one_box() -> None:
    nameless, other = Frame("[unknown]", "user", ""), Frame("[unknown]", "user", "libc.so.6")
    main = Frame("main", "user", "hot")
    root, _ = tree_of(stacks(((nameless, nameless, nameless, other, main, nameless), 3)))
    assert root.depth() == 1 + 1 + 4


def test_what_is_missing_is_said() -> None:
    nameless = [Frame("[unknown]", "user", module) for module in ("", "libc.so.6")]
    lost = Frame("[lost]", "user", "")
    frame = stacks(((MAIN, HOT), 52), ((MAIN, *nameless), 31), ((lost,), 17))
    words = " ".join(plots.flame_graph(frame).words)
    assert "Lost: 17 samples (17.0 %)" in words
    assert "functions in 31 samples (31.0 %), of code of no file, libc.so.6." in words


def test_no_samples_are_no_flames() -> None:
    graph = plots.flame_graph(stacks())
    assert graph.words == ["There are no samples: nothing ran, or nothing was attached."]
    bundle = graph._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG") and "There are no samples" in repr(graph)
    assert graph.folded() == [] and facts(graph)["total"] == 0


def test_two_captures_are_compared_by_share() -> None:
    after = stacks(((MAIN, HOT), 70), ((MAIN, READ), 200), ((MAIN,), 100))
    told = facts(plots.flame_graph(after, before=SEVENTY))
    assert told["before"] == 100
    children = told["tree"]["children"][0]["children"][0]["children"]
    assert {each["name"]: (each["value"], each["b"]) for each in children} == {
        "checksum": (70, 70),
        "vfs_read": (200, 20),
    }


def test_for_other_tools() -> None:
    graph = plots.flame_graph(SEVENTY, title="t", unit="ns")
    assert graph.folded() == ["hot;main;checksum 70", "hot;main;vfs_read 20", "hot;main 10"]
    told = graph.speedscope()
    profile, frames = told["profiles"][0], told["shared"]["frames"]
    assert told["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert (profile["type"], profile["unit"]) == ("sampled", "nanoseconds")
    assert profile["endValue"] - profile["startValue"] == sum(profile["weights"]) == 100
    assert len(profile["samples"]) == len(profile["weights"]) and told["activeProfileIndex"] == 0
    assert all(set(frame) <= {"name", "file", "line", "col"} for frame in frames)
    named = [[frames[n]["name"] for n in stack] for stack in profile["samples"]]
    assert named == [["hot", "main", "checksum"], ["hot", "main", "vfs_read"], ["hot", "main"]]
    json.dumps(told)


def test_the_page_needs_no_network_and_names_cannot_break_it() -> None:
    wild = Frame("</script><b>&;$x$", "user", "")
    graph = plots.flame_graph(stacks(((wild,), 3)), title="<i>&", unit="ns")
    page = graph.html()
    assert "<title>&lt;i&gt;&amp;</title>" in page and "</script><b>" not in page
    assert not re.search(r"""(src|href)=["']?https?:|@import|url\(""", page)
    assert facts(graph)["tree"]["children"][0]["children"][0]["name"] == wild.name
    assert graph.folded() == ["hot;</script><b>&:$x$ 3"]
    shown = graph._repr_mimebundle_()
    assert 'sandbox="allow-scripts"' in shown["text/html"] and shown["image/png"]


@pytest.mark.parametrize("kind", ["html", "svg", "png"])
def test_saved(kind: str, tmp_path: Path) -> None:
    path = plots.flame_graph(SEVENTY).save(tmp_path / f"flames.{kind}")
    begin = {"html": b"<!DOCTYPE html>", "svg": b"<?xml", "png": b"\x89PNG"}[kind]
    assert path.read_bytes().startswith(begin)


def test_saved_as_what_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.html, \.svg or \.png"):
        plots.flame_graph(SEVENTY).save(tmp_path / "flames.pdf")
