"""A flame graph of a million samples: how long until it is there, and is it smooth?

    .venv/bin/python benchmarks/flame_graph.py [--samples 1000000] [--stacks 20000]

Stacks are made, not sampled: 20,000 distinct ones, 8 to 40 functions deep, whose weights fall
off as those of real programs do: few are met often, most a few times. What is timed is what a
reader waits for: Python's part (tree, pruning, page, and the PNG beside it), then Chromium's, from
opening the page to the first frame with the boxes in it. Smooth is how soon a click is obeyed, when
the picture zooms into a function and out again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import Page

from ebpflab import Frame, plots

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tests" / "browser"))

_ZOOMS = 10
# For each name: click its box, wait until it is as wide as the picture; back, until it is as
# narrow as before. The widths are read before the first click, while nothing moves, and boxes are
# looked up in every frame: a zoom makes them anew.
_ZOOMS_OF = """async names => {
    const wide = document.getElementById("chart").clientWidth;
    const named = name => [...document.querySelectorAll(".frame")].find(
        each => each.getAttribute("name") === name);
    const width = name => named(name)?.querySelector("rect").getBoundingClientRect().width;
    const until = (name, wanted) => new Promise(done => {
        const step = () => (Math.abs(width(name) - wanted) < 0.01
            ? done(performance.now()) : requestAnimationFrame(step));
        requestAnimationFrame(step);
    });
    const narrow = new Map(names.map(name => [name, width(name)])), took = [];
    for (const name of names) {
        for (const [act, wanted] of [
            [() => named(name).dispatchEvent(new MouseEvent("click", { bubbles: true })), wide],
            [() => document.getElementById("reset").click(), narrow.get(name)]]) {
            const began = performance.now();
            act();
            took.push(await until(name, wanted) - began);
        }
    }
    return took;
}"""


def stacks_of(samples: int, distinct: int, seed: int = 7) -> pd.DataFrame:
    """What ``Program.stacks()`` would have returned: ``distinct`` stacks of ``samples`` samples.

    A stack is a way down a call tree: most of the time to one of the first functions that its
    function calls, now and then to a later one, so that stacks share callers, as real ones do.
    """
    chance = np.random.default_rng(seed)
    made: dict[tuple[int, ...], None] = {}
    while len(made) < distinct:
        depth = int(chance.integers(8, 41))
        made[tuple(chance.geometric(0.55, depth).tolist())] = None
    weights = 1 / np.arange(1, distinct + 1)
    values = 1 + chance.multinomial(samples - distinct, weights / weights.sum())
    names: dict[tuple[int, ...], Frame] = {}
    stacks = []
    for way in made:
        prefixes = [way[: end + 1] for end in range(len(way))]
        for prefix in prefixes:
            names.setdefault(prefix, Frame(f"function_{len(names)}", "user", "program"))
        stacks.append(tuple(names[prefix] for prefix in prefixes))
    return pd.DataFrame({"comm": "program", "value": values, "stack": stacks})


def opened(page: Page, path: Path) -> float:
    """Seconds from opening the page to the first frame with the picture in it."""
    began = time.perf_counter()
    page.goto(path.as_uri())
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    taken = time.perf_counter() - began
    assert page.locator(".frame").count() > 1
    return taken


def zoomed(page: Page) -> list[float]:
    """Milliseconds until the page obeys, zooming into functions and out again."""
    boxes = page.locator(".frame")
    names = [boxes.nth(n).get_attribute("name") for n in range(2, min(boxes.count(), _ZOOMS + 2))]
    took: list[float] = page.evaluate(_ZOOMS_OF, names)
    return took


def main() -> None:
    from our_jupyterlab import browsing  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--stacks", type=int, default=20_000)
    options = parser.parse_args()
    frame = stacks_of(options.samples, options.stacks)
    functions = sum(map(len, frame["stack"]))
    print(
        f"{frame['value'].sum():,} samples, {len(frame):,} stacks, {functions:,} functions in them"
    )
    with tempfile.TemporaryDirectory(prefix="ebpflab-") as folder:
        began, cpu_began = time.perf_counter(), time.process_time()
        graph = plots.flame_graph(frame, title="A million samples")
        page_made = graph.save(Path(folder) / "flames.html")
        in_python = time.perf_counter() - began
        began = time.perf_counter()
        graph.save(Path(folder) / "flames.png")
        png, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        with browsing(Path(folder)) as page:
            in_browser = opened(page, page_made)
            shown = page.locator(".frame").count()
            zooms = np.array(zoomed(page))
        size = page_made.stat().st_size
    print(" ".join(graph.words))
    print(
        f"{'tree, pruning and page (' + format(size / 1000, '.0f') + ' kB)':34} {in_python:6.2f} s"
    )
    print(f"{'the PNG beside it':34} {png:6.2f} s")
    print(f"{f'Chromium, {shown:,} boxes':34} {in_browser:6.2f} s")
    print(f"{'until it is there':34} {in_python + png + in_browser:6.2f} s")
    print(f"{'of that, Python on a CPU':34} {cpu:6.2f} s")
    median, most = np.percentile(zooms, [50, 100])
    print(f"{len(zooms)} times in and out: {median:.0f} ms until it is drawn, {most:.0f} at most")


if __name__ == "__main__":
    main()
