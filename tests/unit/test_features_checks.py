"""Each check of `ebpflab doctor`, on machines made of a folder: outcome, reason, fix."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import pytest

from ebpflab.agent.kernel import features
from ebpflab.agent.kernel.features import Finding, Machine

RELEASE = "6.12.57+deb13-amd64"


class Fake(Machine):
    """A machine whose files are in a folder, and whose programs say what a test says."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.release, self.arch, self.euid = RELEASE, "x86_64", 0
        self.programs: dict[str, tuple[int, str]] = {}
        self.calls: dict[str, tuple[int, int]] = {}

    def write(self, path: str, text: str = "") -> None:
        place = Path(self.path(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def which(self, name: str, *folders: str) -> str | None:
        return f"/usr/bin/{name}" if any(name in line for line in self.programs) else None

    def run(self, *argv: str) -> tuple[int, str]:
        line = " ".join(argv)
        return next((said for key, said in self.programs.items() if key in line), (127, ""))

    def syscall(self, name: str, *args: object) -> tuple[int, int]:
        return self.calls.get(name, (-1, errno.EPERM))

    def with_bcc(self, works: bool | None, version: str) -> Fake:
        self._bcc = (works, version, "/usr/lib/python3/dist-packages/bcc/__init__.py")
        self.write(features.SYSTEM_PYTHON)
        return self


@pytest.fixture
def machine(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_every_check_survives_a_machine_where_nothing_is_there(machine: Fake) -> None:
    machine.euid = 1000
    rows = features.probe(machine)
    assert [row["feature"] for row in rows] == list(features.CHECKS)
    for row in rows:
        assert list(row) == ["feature", "status", "reason", "fix"]
        assert row["status"] in ("yes", "no", "unknown")
        assert row["reason"] and "check itself failed" not in row["reason"]
        assert row["fix"] or row["status"] == "yes", row


def test_a_check_that_fails_is_unknown_and_the_others_go_on(
    machine: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(machine: Machine) -> Finding:
        raise RuntimeError("no such luck")

    monkeypatch.setitem(features.CHECKS, "BTF", broken)
    rows = {row["feature"]: row for row in features.probe(machine)}
    assert rows["BTF"]["status"] == "unknown"
    assert "no such luck" in rows["BTF"]["reason"]
    assert len(rows) == len(features.CHECKS)


# --- privilege and BCC ---------------------------------------------------------------


def test_root(machine: Fake) -> None:
    assert features.check_root(machine) == Finding("yes", "running as root")


@pytest.mark.parametrize(
    ("programs", "installed", "status", "reason"),
    [
        ({}, False, "no", "sudo is not installed"),
        ({"sudo -n true": (1, "")}, False, "no", "would ask for a password"),
        ({"sudo -n true": (0, "")}, False, "yes", "without a password"),
        ({"sudo -n true": (1, ""), "sudo -n -l": (0, "")}, False, "no", "password"),
        ({"sudo -n true": (1, ""), "sudo -n -l": (0, "")}, True, "yes", "a sudo rule allows"),
        ({"sudo -n true": (1, ""), "sudo -n -l": (1, "")}, True, "no", "password"),
    ],
)
def test_ordinary_user(
    machine: Fake,
    programs: dict[str, tuple[int, str]],
    installed: bool,
    status: str,
    reason: str,
) -> None:
    machine.euid, machine.programs = 1000, programs
    if installed:
        machine.write(features.INSTALLED_STARTER)
    finding = features.check_root(machine)
    assert finding.status == status
    assert reason in finding.reason


def test_bcc_missing_says_which_python_and_which_package(machine: Fake) -> None:
    machine.with_bcc(None, "ModuleNotFoundError: No module named 'bcc'")
    finding = features.check_bcc(machine)
    assert finding.status == "no"
    assert "/usr/bin/python3 cannot import bcc (ModuleNotFoundError" in finding.reason
    assert "python3-bpfcc" in finding.fix


def test_bcc_of_the_python_package_index_is_recognised(machine: Fake) -> None:
    finding = features.check_bcc(machine.with_bcc(False, "1.0"))
    assert finding.status == "no"
    assert "another project" in finding.reason
    assert "pip uninstall bcc" in finding.fix


@pytest.mark.parametrize(
    ("kernel", "bcc", "status"),
    [
        ("6.12.57+deb13-amd64", "0.31.0", "yes"),
        ("6.1.0-54-amd64", "0.26.0", "yes"),
        ("6.8.0-31-generic", "0.29.1", "yes"),
        ("6.11.0-8-generic", "0.29.1", "unknown"),
        ("6.18.0-1-amd64", "0.36.0", "unknown"),
        ("6.18.0-1-amd64", "0.36.1", "yes"),
        ("6.19.1-amd64", "0.36.1", "unknown"),
        ("7.2.0-amd64", "0.37.0", "yes"),
        ("5.15.0-25-generic", "0.18.0", "unknown"),
        ("6.12.57", "", "unknown"),
    ],
)
def test_bcc_against_kernel(machine: Fake, kernel: str, bcc: str, status: str) -> None:
    machine.release = kernel
    finding = features.check_bcc_version(machine.with_bcc(True, bcc))
    assert finding.status == status
    assert bool(finding.fix) == (status != "yes")


def test_headers_that_match(machine: Fake) -> None:
    tree = f"/lib/modules/{RELEASE}/build"
    machine.write(f"{tree}/include/generated/utsrelease.h", f'#define UTS_RELEASE "{RELEASE}"\n')
    assert features.check_headers(machine).status == "yes"


def test_headers_of_another_kernel_are_refused(machine: Fake) -> None:
    tree = f"/lib/modules/{RELEASE}/build"
    machine.write(f"{tree}/include/config/kernel.release", "6.12.48+deb13-amd64\n")
    finding = features.check_headers(machine)
    assert finding.status == "no"
    assert "6.12.48+deb13-amd64" in finding.reason
    assert "wrong offsets" in finding.reason
    assert f"linux-headers-{RELEASE}" in finding.fix


def test_headers_without_a_name_are_unknown(machine: Fake) -> None:
    machine.write(f"/lib/modules/{RELEASE}/build/Makefile")
    assert features.check_headers(machine).status == "unknown"


def test_headers_to_borrow_are_the_newest(machine: Fake) -> None:
    for name in ("6.1.0-9-amd64", "6.12.57+deb13-amd64", "6.9.0-amd64"):
        machine.write(f"/lib/modules/{name}/build/Makefile")
    machine.release = "6.18.44-fc"
    finding = features.check_headers(machine)
    assert finding.status == "no"
    assert "can borrow those of 6.12.57+deb13-amd64" in finding.reason
    assert "apt-get" not in finding.fix  # no distribution has a package for such a kernel


def test_headers_inside_the_kernel_are_none_for_the_agent(machine: Fake) -> None:
    machine.write("/sys/kernel/kheaders.tar.xz")
    finding = features.check_headers(machine)
    assert finding.status == "no"
    assert "/sys/kernel/kheaders.tar.xz is not used" in finding.reason
    assert f"linux-headers-{RELEASE}" in finding.fix


# --- the kernel ----------------------------------------------------------------------


def test_tracefs(machine: Fake) -> None:
    machine.write("/proc/filesystems", "nodev\ttracefs\n")
    machine.write("/proc/mounts", "proc /proc proc rw 0 0\n")
    finding = features.check_tracefs(machine)
    assert (finding.status, finding.fix) == (
        "no",
        "sudo mount -t tracefs nodev /sys/kernel/tracing",
    )
    machine.write("/proc/filesystems", "nodev\tproc\n")
    assert "built without" in features.check_tracefs(machine).reason
    machine.write("/proc/mounts", "nodev /sys/kernel/tracing tracefs rw 0 0\n")
    assert features.check_tracefs(machine).reason == "at /sys/kernel/tracing, readable by root only"
    machine.write("/sys/kernel/tracing/events/enable")
    assert features.check_tracefs(machine) == Finding("yes", "at /sys/kernel/tracing")


@pytest.mark.parametrize("feature", ["kprobes", "uprobes", "tracepoints"])
def test_probe_kinds(machine: Fake, feature: str) -> None:
    check = features.CHECKS[feature]
    assert check(machine).status == "unknown"
    machine.write("/sys/bus/event_source/devices/software/type", "1")
    assert check(machine).status == "no"
    machine.write(f"/sys/bus/event_source/devices/{feature[:-1]}/type", "8")
    assert check(machine).status == "yes"


def test_kprobes_that_were_not_built_in(machine: Fake) -> None:
    config = "# CONFIG_KPROBES is not set\nCONFIG_UPROBE_EVENTS=y\n"
    machine.write("/proc/config.gz")
    Path(machine.path("/proc/config.gz")).write_bytes(gzip.compress(config.encode()))
    finding = features.CHECKS["kprobes"](machine)
    assert finding[:2] == ("no", "this kernel was built without CONFIG_KPROBE_EVENTS")
    assert machine.option("UPROBE_EVENTS") == "y"


def test_sdt_in_either_folder(machine: Fake) -> None:
    assert "systemtap-sdt-dev" in features.check_sdt(machine).fix
    machine.write("/usr/include/x86_64-linux-gnu/sys/sdt.h")
    assert features.check_sdt(machine).status == "yes"


def test_perf_events(machine: Fake) -> None:
    assert "built without" in features.check_perf_events(machine).reason
    machine.write("/proc/sys/kernel/perf_event_paranoid", "4\n")
    assert features.check_perf_events(machine).status == "no"
    machine.euid = 1000
    assert features.check_perf_events(machine).status == "unknown"


def test_ring_buffer(machine: Fake) -> None:
    assert features.check_ring_buffer(machine).status == "no"  # root, and refused
    machine.euid = 1000
    assert "not tried" in features.check_ring_buffer(machine).reason
    machine.release = "5.4.0-26-generic"
    assert features.check_ring_buffer(machine).status == "no"


def test_fentry(machine: Fake) -> None:
    assert features.check_fentry(machine).status == "no"  # root, and refused
    machine.euid = 1000
    assert features.check_fentry(machine).status == "unknown"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("[none] integrity confidentiality", "yes"),
        ("none [integrity] confidentiality", "yes"),
        ("none integrity [confidentiality]", "no"),
    ],
)
def test_lockdown(machine: Fake, state: str, status: str) -> None:
    machine.write("/sys/kernel/security/lockdown", state)
    assert features.check_lockdown(machine).status == status


def test_lockdown_that_cannot_be_read(machine: Fake) -> None:
    assert features.check_lockdown(machine).status == "unknown"
    guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
    machine.write(f"/sys/firmware/efi/efivars/SecureBoot-{guid}", "\x06\0\0\0\x01")
    assert "Secure Boot is on" in features.check_lockdown(machine).reason
    machine.write(f"/boot/config-{RELEASE}", "CONFIG_BPF=y\n")
    assert features.check_lockdown(machine).status == "yes"


def test_container_and_wsl(machine: Fake) -> None:
    namespace = Path(machine.path("/proc/self/ns/pid"))
    namespace.parent.mkdir(parents=True)
    namespace.symlink_to(features.INITIAL_PID_NAMESPACE)
    assert features.check_container(machine).status == "yes"
    namespace.unlink()
    namespace.symlink_to("pid:[4026532567]")
    assert "container" in features.check_container(machine).reason
    machine.release = "5.15.167.4-microsoft-standard-WSL2"
    assert "WSL2" in features.check_container(machine).reason


# --- tools ---------------------------------------------------------------------------


def test_tools(machine: Fake) -> None:
    machine.programs = {
        "go version": (0, "go version go1.24.4 linux/amd64\n"),
        "qemu-system-x86_64": (0, ""),
        "mmdebstrap": (0, ""),
    }
    for check in (features.check_go, features.check_qemu, features.check_mmdebstrap):
        assert check(machine).status == "yes"
    assert "go1.24.4" in features.check_go(machine).reason


def test_kvm_is_never_promised(machine: Fake) -> None:
    assert features.check_kvm(machine).status == "no"
    machine.write("/dev/kvm")
    assert features.check_kvm(machine).status == "unknown"


def test_without_apt_a_fix_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.shutil, "which", lambda name: None)
    assert features.install("gcc") == "install what this distribution calls gcc"
