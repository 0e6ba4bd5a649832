"""What a submission's Python can see and do, without a VM: a shell in Python's place."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import confined
import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("image")]  # which the sandbox shows

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="grade-", dir="/tmp") as folder:
        if os.getuid() == 0:
            os.chown(folder, confined.GRADED_USER, confined.GRADED_USER)
        yield Path(folder)


def inside(runtime: Path, script: str) -> str:
    """What a script says in the sandbox, its complaints included."""
    command = [*confined.sandbox(runtime), *confined.limits(), "/bin/sh", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def test_it_sees_no_solution_no_gradebook_and_no_hidden_test(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In /var/tmp, of which the sandbox shows what it must to every user.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        repository = Path(folder)
        repository.chmod(0o755)
        hidden = [
            "classroom/course/source/01/answers",
            "tests/course/submissions.py",
            ".git/packed-refs",
        ]
        hidden += ["course/gradebook.db", "hub/jupyterhub.sqlite"]
        for name in (*hidden, "classroom/course/startup.py"):
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            (repository / name).touch()
        monkeypatch.setattr(confined, "REPOSITORY", repository)
        seen = inside(runtime, f"find {repository} -type f").split()
        assert seen == [str(repository / "classroom/course/startup.py")]


@pytest.mark.parametrize("top", ["/tmp", "/dev/shm", "/var/tmp"])
def test_clone_in_deep_folder_can_be_read_where_the_sandbox_hides_the_folders_above(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="a b ", dir=top) as folder:
        repository = Path(folder) / "c d" / "ebpflab"
        repository.mkdir(parents=True)
        (repository / "README.md").write_text("here\n")
        (repository.parent / "of-others").touch()
        repository.chmod(0o755)  # whatever our umask
        monkeypatch.setattr(confined, "REPOSITORY", repository)
        read = f"cd {shlex.quote(str(repository))} && cat README.md && ls .. && stat -c %a .. ../.."
        assert inside(runtime, read).split() == ["here", "ebpflab", "755", "755"]


def test_folder_for_sockets_may_be_deep() -> None:
    with tempfile.TemporaryDirectory(prefix="a b ", dir="/tmp") as folder:
        runtime = Path(folder) / "c d"
        runtime.mkdir()
        if os.getuid() == 0:
            os.chown(runtime, confined.GRADED_USER, confined.GRADED_USER)
        inside(runtime, f"touch {shlex.quote(str(runtime / 'socket'))}")
        assert (runtime / "socket").exists()


def test_it_sees_nobodys_home(runtime: Path) -> None:
    # Where this repository or this Python lie in somebody's home, so much of it is there.
    shown = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    left_out = " ".join(f"-path {shlex.quote(str(path))} -prune -o" for path in shown)
    seen = inside(runtime, f"find /home /srv /run -mindepth 1 {left_out} -print")
    assert set(map(Path, seen.splitlines())) <= {above for path in shown for above in path.parents}


def test_it_writes_nowhere_but_in_a_small_tmp(runtime: Path) -> None:
    for place in (REPOSITORY, Path("/"), Path("/etc"), Path("/dev"), Path(sys.prefix)):
        assert "cannot" in inside(runtime, f"echo x > {shlex.quote(str(place / 'x'))}")
    for place in ("/tmp", "/dev/shm"):
        size = inside(runtime, f"df --block-size=1 --output=size {place} | tail -n 1")
        assert int(size) == confined.TMP_BYTES
    assert "cannot" in inside(runtime, "echo x > /var/tmp/x") or os.getuid() != 0


def test_it_has_no_network_and_sees_no_process_of_others(runtime: Path) -> None:
    interfaces = inside(runtime, "tail -n +3 /proc/net/dev").split()
    assert interfaces[0] == "lo:" and not any(word.endswith(":") for word in interfaces[1:])
    assert str(os.getpid()) not in inside(runtime, "ls /proc").split()


def test_it_is_an_ordinary_user_with_limits(runtime: Path) -> None:
    user, processes, kib = inside(runtime, "id -u; ulimit -p; ulimit -v").split()
    assert user != "0"
    assert int(processes) == confined.PROCESSES
    assert int(kib) << 10 == confined.ADDRESS_SPACE_BYTES


def test_nothing_that_it_starts_outlives_it(runtime: Path) -> None:
    sleep = f"sleep 86413.{os.getpid()}"  # other tests of this machine may be running this one
    assert inside(runtime, f"{sleep} & echo started").split() == ["started"]
    left = subprocess.run(["pgrep", "-fx", re.escape(sleep)], capture_output=True, text=True)
    assert left.stdout == ""


def test_its_python_is_ours_and_finds_the_image(runtime: Path) -> None:
    code = "from ebpflab import vm; print(vm.unavailable(), vm.ready())"
    python = shlex.quote(sys.executable)
    assert inside(runtime, f'{python} -c "{code}"').split() == ["None", "True"]


def test_what_it_prints_is_stdout_and_has_a_limit(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        "import os, sys; print('said', file=sys.stderr); _ = os.write(2, b'written\\n')",
        "while True: print('x' * 1000)",
        "print('on we go')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    monkeypatch.setenv("JUPYTER_PATH", str(REPOSITORY / "classroom" / "course"))
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    config = Config()
    config.KernelManager.transport, config.KernelManager.ip = "ipc", str(runtime / "kernel")
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=300, allow_errors=True, config=config
    )
    client.execute()
    said, flood, after = (cell.outputs for cell in notebook.cells)
    assert {output.name for output in said} == {"stdout"}
    assert sorted("".join(output.text for output in said).split()) == ["said", "written"]
    assert "more than 1,000,000 characters" in flood[-1].evalue
    assert sum(len(output.get("text", "")) for output in flood) <= 1_000_000
    assert after[0].text == "on we go\n"
