"""The rows as a DataFrame, the choice that follows from them, and the real machine's."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ebpflab.agent.kernel import features as agent_features
from ebpflab.targets.features import MAY_BE_UNKNOWN, NEEDED, can_trace_kernel, features_frame

AGENT_FEATURES = agent_features.__file__


def rows(**other: str) -> list[dict[str, str]]:
    """A machine where everything works, but for what ``other`` says."""
    names = [*agent_features.CHECKS]
    return [
        {"feature": name, "status": other.get(name, "yes"), "reason": f"because {name}", "fix": ""}
        for name in names
    ]


def test_frame_has_a_row_for_each_check() -> None:
    frame = features_frame(rows(kprobes="no"))
    assert list(frame.columns) == ["feature", "status", "reason", "fix"]
    assert list(frame["status"].cat.categories) == ["yes", "no", "unknown"]
    assert frame.set_index("feature").loc["kprobes", "status"] == "no"
    assert len(features_frame([])) == 0


def test_what_is_needed_is_what_is_checked() -> None:
    assert set(NEEDED) <= agent_features.CHECKS.keys()
    assert set(NEEDED) >= MAY_BE_UNKNOWN


def test_a_machine_with_everything_is_traced_itself() -> None:
    able, why = can_trace_kernel(rows())
    assert able
    assert why == "this kernel can be traced (because root or sudo)"


@pytest.mark.parametrize("feature", NEEDED)
def test_each_thing_needed_stands_against_it(feature: str) -> None:
    assert can_trace_kernel(rows(**{feature: "no"})) == (False, f"{feature}: because {feature}")
    assert can_trace_kernel(rows(**{feature: "unknown"}))[0] == (feature in MAY_BE_UNKNOWN)
    without = [row for row in rows() if row["feature"] != feature]
    assert can_trace_kernel(without) == (False, f"{feature}: not checked")


@pytest.mark.parametrize("feature", ["uprobes", "BTF", "Go", "KVM", "qemu", "USDT (sys/sdt.h)"])
def test_what_the_chapters_do_not_need_does_not(feature: str) -> None:
    assert can_trace_kernel(rows(**{feature: "no"}))[0]


def as_user(command: list[str], user: str) -> list[str]:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root: run `sudo make test`")
    return ["setpriv", f"--reuid={user}", "--regid=65534", "--clear-groups", *command]


def probe_with(command: list[str]) -> dict[str, dict[str, str]]:
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert done.stderr == ""
    return {row["feature"]: row for row in json.loads(done.stdout)}


def readable_copy(folder: Path) -> str:
    """A copy that any user may read, wherever the repository is."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o711)
    return shutil.copy(AGENT_FEATURES, folder / "features.py")


def check_facts(found: dict[str, dict[str, str]]) -> None:
    """What can be seen from outside of the code."""
    pmus = Path("/sys/bus/event_source/devices")
    for feature in ("kprobe", "uprobe", "tracepoint"):
        expected = "yes" if (pmus / feature).exists() else "no"
        assert found[feature + "s"]["status"] == expected
    assert found["BTF"]["status"] == ("yes" if Path("/sys/kernel/btf/vmlinux").exists() else "no")
    mounted = " tracefs " in Path("/proc/mounts").read_text()
    assert found["tracefs"]["status"] == ("yes" if mounted else "no")
    tree = Path("/lib/modules", platform.release(), "build")
    if not tree.exists():
        assert found["kernel headers"]["status"] == "no"
    works = subprocess.run(["/usr/bin/python3", "-c", "import bcc; bcc.BPF"], capture_output=True)
    assert found["BCC"]["status"] == ("yes" if works.returncode == 0 else "no")
    assert found["qemu"]["status"] == (
        "yes" if shutil.which(f"qemu-system-{platform.machine()}") else "no"
    )


def test_this_machine(tmp_path: Path) -> None:
    mounts = Path("/proc/mounts").read_text()
    found = {row["feature"]: row for row in agent_features.probe()}
    check_facts(found)
    assert (found["root or sudo"]["reason"] == "running as root") == (os.geteuid() == 0)
    assert Path("/proc/mounts").read_text() == mounts


@pytest.mark.parametrize("python", ["/usr/bin/python3", sys.executable])
def test_this_machine_alone_and_isolated(python: str) -> None:
    check_facts(probe_with([python, "-I", "-B", AGENT_FEATURES]))


def test_this_machine_as_an_ordinary_user(tmp_path: Path) -> None:
    script = readable_copy(tmp_path)
    found = probe_with(as_user(["/usr/bin/python3", "-I", "-B", script], "65534"))
    check_facts(found)
    assert found["root or sudo"]["status"] == "no"
    assert not can_trace_kernel(found.values())[0]
    assert "not tried" in found["ring buffer"]["reason"]


def test_this_machine_without_bcc(tmp_path: Path) -> None:
    class NoBcc(agent_features.Machine):
        def run(self, *argv: str) -> tuple[int, str]:
            return super().run(argv[0], "-S", *argv[1:]) if "-c" in argv else super().run(*argv)

    found = {row["feature"]: row for row in agent_features.probe(NoBcc())}
    assert found["BCC"]["status"] == "no"
    assert "ModuleNotFoundError" in found["BCC"]["reason"]
    assert found["BCC for this kernel"]["status"] == "unknown"
    assert not can_trace_kernel(found.values())[0]
