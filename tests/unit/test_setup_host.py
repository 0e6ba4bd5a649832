"""`make setup`, `lab` and `test`, step by step, on machines that are made up.

The set-up is a folder that Python runs (`provision/host`), so its modules are imported here as
they import one another: by bare names.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
HOST = REPOSITORY / "provision/host"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module of the set-up, and forget them all afterwards."""
    names = {path.stem for path in HOST.glob("*.py")} - {"__main__"}
    monkeypatch.syspath_prepend(HOST)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def packages(load: Load) -> ModuleType:
    return load("packages")


@pytest.fixture
def main(load: Load, packages: ModuleType) -> ModuleType:
    spec = importlib.util.spec_from_file_location("host_main", HOST / "__main__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(HOST.glob("*.py")), ids=lambda path: path.name)
def test_starts_under_python_3_8_with_nothing_installed(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    own = {module.stem for module in HOST.glob("*.py")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {
                alias.name.split(".")[0] for alias in node.names
            } <= sys.stdlib_module_names | own
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in sys.stdlib_module_names | own


# --- which packages ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("linux-headers-6.1.0-54-amd64", [6, 1, 0, 54]),
        ("linux-headers-6.12.57+deb13-amd64", [6, 12, 57, 13]),
        ("linux-headers-6.8.0-31-generic", [6, 8, 0, 31]),
        ("linux-headers-6.1.0-54-rt-amd64", None),
        ("linux-headers-6.12.57+deb13-cloud-amd64", None),
        ("linux-headers-6.1.0-54-common", None),
        ("linux-headers-amd64", None),
    ],
)
def test_flavours_of_headers(packages: ModuleType, name: str, version: list[int] | None) -> None:
    assert packages.flavour(name) == ((version, name) if version else None)


APT = [f"linux-headers-{name}" for name in ("6.1.0-9-amd64", "6.1.0-54-amd64", "6.1.0-54-rt-amd64")]


@pytest.mark.parametrize(
    ("release", "installed", "chosen"),
    [
        ("6.1.0-9-amd64", set(), "linux-headers-6.1.0-9-amd64"),
        ("6.1.0-9-amd64", {"linux-headers-6.1.0-9-amd64"}, None),
        ("6.18.44-fc", set(), "linux-headers-6.1.0-54-amd64"),
        ("6.18.44-fc", {"linux-headers-6.1.0-9-amd64"}, None),
    ],
)
def test_headers_of_this_kernel_or_the_newest(
    packages: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    installed: set[str],
    chosen: str | None,
) -> None:
    monkeypatch.setattr(packages, "ask", lambda *command: " ".join(APT))
    monkeypatch.setattr(packages, "installed", lambda names: installed & set(names))
    package = packages.headers_package(release, testing=False)
    assert (package.name if package else None) == chosen
    if package and release not in package.name:
        assert "uprobes and USDT probes only" in package.why


def test_headers_that_bring_a_kernel_are_the_last_choice(
    packages: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = "linux-headers-6.12.9+deb12-amd64", "linux-headers-6.1.0-9-amd64"
    brings = f"{new}\n  Depends: linux-base\n |Depends: linux-image-6.12.9+deb12-amd64\n"
    alone = f"{old}\n  Depends: linux-headers-6.1.0-9-common\n"
    answers = {"pkgnames": f"{new}\n{old}", "depends": brings + alone}
    monkeypatch.setattr(packages, "ask", lambda *command: answers.get(command[1], ""))
    assert packages.headers_package("6.18.44-fc", testing=False).name == old
    answers["pkgnames"] = new
    assert packages.headers_package("6.18.44-fc", testing=False) is None
    assert "would install another kernel" in capsys.readouterr().out
    assert packages.headers_package("6.18.44-fc", testing=True).name == new


def test_empty_package_lists_are_fetched_before_giving_up_on_headers(
    packages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[str] = []
    monkeypatch.setattr(packages, "as_root", list)
    monkeypatch.setattr(packages, "ask", lambda *command: " ".join(lists))
    monkeypatch.setattr(packages, "apt", lambda *arguments, optional: lists.extend(APT))
    assert packages.known_headers() == APT


def test_installed_packages_are_what_dpkg_says(packages: ModuleType) -> None:
    assert packages.installed(["dpkg", "no-such-package-here"]) == {"dpkg"}


def test_missing_venv_names_the_package_of_this_python(
    packages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    (package,) = packages.for_venv()
    assert package.name == f"python3.{sys.version_info.minor}-venv"


# --- how they are installed ----------------------------------------------------------


@pytest.fixture
def apt(packages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command that would be run; gcc is missing, and nothing else."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> SimpleNamespace:
        commands.append([str(word) for word in command])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(packages, "installed", lambda names: set(names) - {"gcc"})
    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages, "as_root", lambda: ["sudo"])
    return commands


def test_where_nothing_is_missing_nothing_is_said_or_done(
    packages: ModuleType, apt: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    packages.ensure([packages.Package("make", "builds")])
    packages.ensure([])
    assert apt == []
    assert capsys.readouterr().out == ""


def test_what_is_missing_is_named_with_the_reason_and_installed(
    packages: ModuleType, apt: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    packages.ensure([packages.Package("make", "builds"), packages.Package("gcc", "compiles")])
    said = capsys.readouterr().out
    assert "gcc" in said and "compiles" in said and "builds" not in said
    update, install = apt
    assert update[0] == "sudo" and update[-1] == "update"
    assert install[-4:] == ["install", "-y", "--no-install-recommends", "gcc"]


def test_old_package_lists_do_not_stop_but_a_failed_installation_does(
    packages: ModuleType, apt: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: object) -> SimpleNamespace:
        apt.append(command)
        return SimpleNamespace(returncode=100)

    monkeypatch.setattr(packages.subprocess, "run", run)
    with pytest.raises(packages.Stop, match="apt-get failed"):
        packages.ensure([packages.Package("gcc", "compiles")])
    assert [command[-1] for command in apt] == ["update", "gcc"]


def test_without_root_or_sudo_the_command_for_an_administrator_is_named(
    packages: ModuleType, apt: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "as_root", lambda: None)
    with pytest.raises(packages.Stop, match=r"apt-get install --no-install-recommends gcc"):
        packages.ensure([packages.Package("gcc", "compiles")])
    assert apt == []
    assert packages.for_tracing(testing=False) == []  # nobody could use them


# --- what is done where --------------------------------------------------------------


def test_another_system_gets_the_steps_to_do_by_hand(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main.shutil, "which", lambda name: None)
    with pytest.raises(main.Stop, match=r"(?s)not a system.*constraints\.txt.*macOS"):
        main.require_debian()


def test_an_old_python_goes_on_with_a_newer_one(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(main.sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(main.sys, "argv", ["provision/host", "lab"])
    monkeypatch.setattr(main.os, "execv", lambda *command: started.append(command))
    newer = {"python3.12": sys.executable}
    monkeypatch.setattr(main.shutil, "which", newer.get)
    with pytest.raises(main.Stop):  # only because this execv returns
        main.require_python()
    assert started == [(sys.executable, [sys.executable, "-B", "provision/host", "lab"])]


def test_an_old_python_alone_says_what_to_install(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main.sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(main.shutil, "which", lambda name: None)
    with pytest.raises(main.Stop, match=r"3\.11 or newer.*\n.*\n.*apt-get install python3\.11"):
        main.require_python()


@pytest.mark.parametrize(
    ("local", "always", "built"),
    [(True, False, False), (True, True, True), (False, False, True), (False, True, True)],
)
def test_the_guest_is_built_where_it_is_needed(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch, local: bool, always: bool, built: bool
) -> None:
    commands: list[list[str]] = []
    found = SimpleNamespace(probe=list, can_trace_kernel=lambda rows: (local, "kprobes: none"))
    monkeypatch.setattr(main, "module", lambda path: found)
    monkeypatch.setattr(main.packages, "ensure", lambda wanted: None)

    def run(command: list[str]) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(main.subprocess, "run", run)
    main.prepare_guest(always)
    assert commands == [[".venv/bin/ebpflab", "vm", "build"]] * built


@pytest.mark.parametrize("goal", ["book", "test"])
def test_the_book_alone_goes_on_without_a_guest(
    main: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    goal: str,
) -> None:
    def no_guest(always: bool, everybodys: bool) -> None:
        raise main.Stop("no mmdebstrap")

    for name in ("require_python", "require_debian"):
        monkeypatch.setattr(main, name, lambda: None)
    monkeypatch.setattr(main.packages, "ensure", lambda wanted: None)
    monkeypatch.setattr(main.environment, "ensure", lambda *_: None)
    monkeypatch.setattr(main.shutil, "which", lambda name: name)
    monkeypatch.setattr(main, "prepare_guest", no_guest)
    if goal == "test":
        with pytest.raises(main.Stop, match="no mmdebstrap"):
            main.prepare(goal)
    else:
        main.prepare(goal)
        assert "no mmdebstrap\n==> So the book is made of" in capsys.readouterr().out


@pytest.mark.parametrize("npm", [None, "/opt/node/bin/npm"])
def test_node_of_another_source_is_left_as_it_is(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, npm: str | None
) -> None:
    installed: list[Any] = []
    monkeypatch.setattr(main, "REPOSITORY", tmp_path)
    monkeypatch.setattr(main.shutil, "which", lambda name: npm)
    monkeypatch.setattr(main.packages, "ensure", lambda wanted: installed.extend(wanted))
    monkeypatch.setattr(main.subprocess, "run", lambda command: SimpleNamespace(returncode=0))
    main.install_proxy()
    assert [package.name for package in installed] == ([] if npm else ["nodejs", "npm"])


def test_the_checks_are_read_without_the_package(main: ModuleType) -> None:
    """Before there is a .venv: with the standard library alone."""
    script = (
        "import runpy, sys; sys.path.insert(0, 'provision/host'); sys.argv = ['x'];"
        "m = runpy.run_path('provision/host/__main__.py', run_name='host');"
        "rows = m['module']('ebpflab/agent/kernel/features.py').probe();"
        "print(m['module']('ebpflab/targets/features.py').can_trace_kernel(rows))"
    )
    python = Path(sys.base_prefix, "bin/python3")
    done = subprocess.run(
        [python, "-I", "-S", "-B", "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.startswith(("(True, ", "(False, ")), done.stderr


def test_wrong_use_and_failures_end_without_a_traceback(
    main: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(main.sys, "argv", ["provision/host", "nonsense"])
    assert main.main() == 2

    def stop(goal: str) -> None:
        raise main.Stop("no such luck")

    def interrupt(goal: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.sys, "argv", ["provision/host", "lab"])
    monkeypatch.setattr(main, "prepare", stop)
    assert main.main() == 1
    monkeypatch.setattr(main, "prepare", interrupt)
    assert main.main() == 130
    said = capsys.readouterr().err
    assert "ebpflab: no such luck" in said and "`make lab` goes on from here" in said


def test_jupyter_serves_loopback_and_keeps_its_token(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = load("server")
    commands: list[list[str]] = []
    monkeypatch.setattr(server.os, "execv", lambda program, command: commands.append(command))
    monkeypatch.setattr(server.os, "geteuid", lambda: 0)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    server.serve(REPOSITORY)
    assert {"--ServerApp.ip=127.0.0.1", "--no-browser", "--allow-root"} <= {*commands[0]}
    assert "You are root" in capsys.readouterr().out
    monkeypatch.setattr(server.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("DISPLAY", ":0")
    server.serve(REPOSITORY)
    assert not {"--no-browser", "--allow-root"} & {*commands[1]}
    assert "token" not in " ".join(commands[0] + commands[1])


# --- .venv ---------------------------------------------------------------------------


@pytest.fixture
def repository(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ModuleType, Path, list[str]]:
    """The module, a made-up repository, and what was done in it, in short."""
    environment = load("environment")
    done: list[str] = []
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "constraints.txt").write_text("six==1.17.0")

    def run(command: list[object], **options: object) -> SimpleNamespace:
        words = [str(word) for word in command]
        if "venv" in words:
            done.append("venv")
            (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / ".venv/bin/python").unlink(missing_ok=True)
            (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
        else:
            done.append(words[-1])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(environment.subprocess, "run", run)
    return environment, tmp_path, done


Repository = tuple[ModuleType, Path, list[str]]
FIRST = ["venv", "hatchling", ".[lab]"]


def test_venv_is_made_once(repository: Repository) -> None:
    environment, path, done = repository
    environment.ensure(path, ["lab"])
    assert done == FIRST
    environment.ensure(path, ["lab"])
    assert done == FIRST


def test_venv_grows_and_does_not_shrink(repository: Repository) -> None:
    environment, path, done = repository
    environment.ensure(path, ["lab"])
    environment.ensure(path, ["lab", "dev"])
    assert done == [*FIRST, "hatchling", ".[dev,lab]"]
    environment.ensure(path, ["lab"])
    assert done == [*FIRST, "hatchling", ".[dev,lab]"]
    (path / "constraints.txt").write_text("six==1.18.0")
    environment.ensure(path, ["lab", "dev"])
    assert done[-2:] == ["hatchling", ".[dev,lab]"] and done.count("venv") == 1


def test_venv_that_was_moved_or_lost_its_python_is_made_anew(repository: Repository) -> None:
    environment, path, done = repository
    environment.ensure(path, ["lab"])
    (path / ".venv/bin/python").unlink()
    (path / ".venv/bin/python").symlink_to("/usr/bin/python-that-was-upgraded")
    environment.ensure(path, ["lab"])
    assert done == FIRST * 2
    moved = path / "elsewhere"
    moved.mkdir()
    for name in ("pyproject.toml", "constraints.txt", ".venv"):
        (path / name).rename(moved / name)
    assert environment.describe(moved, ["lab"])["repository"] == str(moved)
    old = environment.read(moved / ".venv/ebpflab.json")
    assert old["repository"] != str(moved)


def test_a_python_in_a_closed_home_is_no_hubs(load: Load) -> None:
    environment, stop = load("environment"), load("stop")
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # pytest's own are closed, too
        folder = Path(made)
        folder.chmod(0o755)
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / "home").mkdir()
        (folder / "home/python3").touch()
        (folder / ".venv/bin/python").symlink_to(folder / "home/python3")
        environment.require_readable(folder)
        (folder / "home").chmod(0o700)
        with pytest.raises(stop.Stop, match=rf"may not enter {folder}/home(?s:.*)make hub PYTHON="):
            environment.require_readable(folder)


def test_an_installation_that_failed_is_not_trusted(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, path, done = repository
    with monkeypatch.context() as patch:

        def fail(*arguments: object) -> None:
            raise environment.Stop("no network")

        patch.setattr(environment, "pip", fail)
        with pytest.raises(environment.Stop):
            environment.ensure(path, ["lab"])
    assert not (path / ".venv/ebpflab.json").exists()
    environment.ensure(path, ["lab"])
    assert done[-2:] == FIRST[-2:]


def test_every_program_the_guest_is_made_with_is_installed(packages: ModuleType) -> None:
    from ebpflab.vm.process import PACKAGE_OF

    always_there = {"util-linux"}
    other_machines = {"qemu-system-x86", "qemu-system-arm"} - {packages.QEMU}
    needed = {*PACKAGE_OF.values()} - always_there - other_machines
    assert needed <= {package.name for package in packages.FOR_BOX}
