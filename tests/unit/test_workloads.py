"""Commands as the agent runs them: when they have ended, and what is known of them then."""

from __future__ import annotations

import os
import pwd
import queue
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ebpflab.agent.processes import workloads

FOR_EVER_SECONDS = 60  # so long does nothing here take, however slow the machine is

Result = tuple[dict[str, Any], bytes]
Run = Callable[..., Result]


@pytest.fixture
def run() -> Iterator[Run]:
    """``run(script, input="")``: a shell's result; whatever it has left behind is killed."""
    commands = workloads.Workloads()
    groups = []

    def run(script: str, **request: Any) -> Result:
        pid = commands.start({"argv": ["/bin/sh", "-c", script], **request})
        groups.append(pid)
        results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        commands.wait(pid, lambda *result: results.put(result))
        return results.get(timeout=FOR_EVER_SECONDS)

    yield run
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nobody is left


@pytest.fixture
def slow_to_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``slow_to_read(size)``: reading so many bytes takes a quarter of a second from now on."""

    def slow_to_read(most: int) -> None:
        read = os.read

        def slowly(fd: int, size: int) -> bytes:
            time.sleep(0.25)
            return read(fd, min(size, most))

        monkeypatch.setattr(os, "read", slowly)

    return slow_to_read


def test_input_and_output_and_status(run: Run) -> None:
    told, output = run("cat; echo err >&2; exit 3", input="in\n" * 100_003)
    assert output == b"in\n" * 100_003 + b"err\n"
    assert (told["returncode"], told["stdout_bytes"], told["truncated"]) == (3, 300_009, False)
    assert run("true", input="x" * 1_000_003)[0]["returncode"] == 0  # it reads nothing


def test_a_command_has_ended_although_another_holds_its_input(run: Run) -> None:
    told, output = run("exec 3<&0; sleep 1000 >/dev/null 2>&1 & echo here", input="x" * 200_003)
    assert (told["returncode"], output) == (0, b"here\n")


def test_what_it_starts_has_a_second_to_say_the_last(run: Run) -> None:
    assert run("{ sleep 0.1; echo late; } & echo here")[1] == b"here\nlate\n"


def test_what_it_starts_and_says_no_more_is_not_waited_for(run: Run) -> None:
    told, output = run("sleep 1000 & echo here")
    assert (told["truncated"], output) == (False, b"here\n")


def test_nothing_that_it_said_is_lost_where_reading_is_slow(
    run: Run, slow_to_read: Callable[[int], None]
) -> None:
    slow_to_read(4096)
    told, output = run("head -c 50021 /dev/zero; sleep 1000 &")
    assert (told["truncated"], len(output)) == (False, 50021)


def test_a_cut_is_told_where_others_go_on(run: Run, slow_to_read: Callable[[int], None]) -> None:
    slow_to_read(16 << 10)
    told, output = run("yes &")
    assert told["truncated"]
    assert 0 < len(output) < 4 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root: sudo make test")
@pytest.mark.parametrize(
    ("user", "name", "home"),
    [(65534, "nobody", pwd.getpwuid(65534).pw_dir), (54321, "somebody-of-a-directory", "/")],
    ids=["known", "unknown"],
)
def test_under_sudo_a_command_is_at_home_where_its_user_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, user: int, name: str, home: str
) -> None:
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("USER", "root")
    monkeypatch.setenv("LOGNAME", "root")
    for variable, value in (("UID", user), ("GID", user), ("USER", name)):
        monkeypatch.setenv(f"SUDO_{variable}", str(value))
    script = "echo $(id -u) $USER $LOGNAME $HOME"
    assert run(script, cwd="/")[1].decode() == f"{user} {name} {name} {home}\n"
    assert run("echo $HOME", cwd="/", env={"HOME": "/else"})[1] == b"/else\n"
