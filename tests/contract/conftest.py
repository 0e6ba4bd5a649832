"""The contract that every target keeps: the same tests, on each, with real kernel events.

Ground truth is made by a C program that calls a function as often as it is told to. Only that
program is probed, so the suite may run on the machine that runs the tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import own_sshd
import pytest
import usdt_programs

from ebpflab import Lab, targets
from ebpflab.display import cells
from ebpflab.replay.taping import TapingTarget
from ebpflab.targets import TARGETS

TARGET_C = r"""
#include <stdio.h>
#include <stdlib.h>
__attribute__((noinline)) long work(long n, const char *text) {
  __asm__ volatile("" : : "r"(text) : "memory");
  return n * 2;
}
int main(int argc, char **argv) {
  char text[] = "hello";
  for (long n = 0; n < atol(argv[1]); n++) work(n, text);
  return 0;
}
"""


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("local", marks=pytest.mark.local),
        pytest.param("ssh", marks=pytest.mark.local),
        pytest.param("vm", marks=pytest.mark.vm),
        "replay",
    ],
)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab on each target. A target that cannot be used here is a failure, not a skip.

    The last one, replay, plays what was recorded when the same tests ran on another.
    """
    tape = tmp_path_factory.getbasetemp() / "contract.tape.xz"
    if request.param == "replay":
        if not tape.exists():
            pytest.skip("nothing was recorded: run the same tests on local or vm in this session")
        with Lab(f"replay:{tape}") as lab:
            yield lab
        return
    if request.param == "ssh" and (machine := request.config.getoption("--machine")):
        with Lab(machine) as lab:
            yield lab
        return
    if request.param == "ssh":
        folder = tmp_path_factory.mktemp("sshd")
        with own_sshd.serving(folder) as address, pytest.MonkeyPatch.context() as patch:
            own_sshd.on_path(folder, patch)
            with Lab(address) as lab:
                yield lab
        return
    target = TARGETS[request.param]()
    reason = target.unavailable()
    assert reason is None, f"{request.param}: {reason}"
    recorder = TapingTarget(target, tape, 0, naming=lambda names: [[each] for each in names])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(targets.TARGETS, "recorder", lambda: recorder)
        with Lab("recorder") as lab:
            yield lab


_real_current = cells.current


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each test is to a recording what a cell is, so that any of them can be played alone."""
    if isinstance(item, pytest.Function):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("lab") == "replay" and item.get_closest_marker("takes_time"):
            pytest.skip("is about the time that passes, and in a recording none does")
        others = {name: value for name, value in params.items() if name != "lab"}
        name = f"{item.path.name} {item.originalname} {others}"
        cells.current = lambda: (name, 1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    cells.current = _real_current


@pytest.fixture(scope="session")
def program(lab: Lab) -> Iterator[str]:
    """The path, on the traced machine, of a program with a function ``work``."""
    folder = lab.run(["mktemp", "-d"]).stdout.strip()
    path = f"{folder}/target"
    built = lab.run(["gcc", "-O1", "-x", "c", "-o", path, "-"], input=TARGET_C)
    assert built.returncode == 0, built.stderr
    yield path
    lab.run(["rm", "-r", folder])


@pytest.fixture(scope="session")
def folder(lab: Lab) -> Iterator[str]:
    """A folder on the traced machine with programs that have USDT probes."""
    folder = usdt_programs.build(lab)
    yield folder
    lab.run(["rm", "-r", folder])
