"""What can this machine trace? One row for each thing tracing depends on.

Every check looks for the thing itself (a PMU, a file, a system call that succeeds) and only
where that is impossible for a version or a configuration option. Nothing is changed: nothing
is mounted, loaded or written. Each row is ``{"feature", "status", "reason", "fix"}``:

    status   "yes", "no", or "unknown" when it cannot be told (mostly: not without root)
    fix      what to do about it; empty only where status is "yes"

Runs inside the agent, and alone as ``python3 -I -B ebpflab/agent/kernel/features.py`` (prints
JSON). Standard library only, Python 3.9, imports nothing of ours; works without root and
without BCC. :func:`probe` never raises.
"""

import ctypes
import glob
import gzip
import json
import mmap
import os
import re
import shutil
import struct
import subprocess
from functools import partial
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

YES, NO, UNKNOWN = "yes", "no", "unknown"
SYSTEM_PYTHON = "/usr/bin/python3"
INSTALLED_STARTER = "/usr/local/lib/ebpflab/start-agent"  # what `ebpflab setup-sudo` allows

# The least BCC whose own copy of linux/bpf.h suits the rest of a kernel's headers:
# `struct bpf_wq` came in 6.10 (fixed in BCC 0.31); 6.18 and 6.19 each needed one more fix.
# linux/ptrace.h and linux/sched.h reach none of it (docs/compatibility.md).
BCC_FOR_KERNEL = (((6, 19), (0, 37)), ((6, 18), (0, 36, 1)), ((6, 10), (0, 31)))

USE_GUEST = 'use the guest, Lab("vm"), which `make vm` builds'

# The initial namespaces have fixed numbers: PROC_PID_INIT_INO in the kernel's proc_ns.h.
INITIAL_PID_NAMESPACE = "pid:[4026531836]"

SYSCALLS = {"x86_64": {"bpf": 321, "perf": 298}, "aarch64": {"bpf": 280, "perf": 241}}

BCC_SCRIPT = """
import json, sys
try:
    import bcc
    print(json.dumps([hasattr(bcc, "BPF"), getattr(bcc, "__version__", ""), bcc.__file__]))
except BaseException as error:
    print(json.dumps([None, type(error).__name__ + ": " + str(error), ""]))
"""


class Finding(NamedTuple):
    """The outcome of one check: a row without its name."""

    status: str
    reason: str
    fix: str = ""


class Machine:
    """What the checks ask of the machine. Tests put a folder in place of ``/``."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.release = os.uname().release
        self.arch = os.uname().machine
        self.euid = os.geteuid()
        self._bcc: Optional[Tuple[Optional[bool], str, str]] = None

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def read(self, path: str) -> Optional[str]:
        """The text of a file, or None when it is not there or may not be read."""
        try:
            with open(self.path(path), errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def which(self, name: str, *folders: str) -> Optional[str]:
        """A program on PATH, or in the folders administrators forget to put there."""
        search = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/bin", *folders]
        return shutil.which(name, path=os.pathsep.join(search))

    def run(self, *argv: str) -> Tuple[int, str]:
        """Exit status (127: could not be started) and standard output."""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 127, str(error)
        return done.returncode, done.stdout

    def option(self, name: str) -> Optional[str]:
        """A kernel option: its value, "n" when it is off, None when there is no config."""
        text = self.read("/boot/config-" + self.release)
        if text is None:
            try:
                with gzip.open(self.path("/proc/config.gz"), "rt") as file:
                    text = file.read()
            except (OSError, EOFError):
                return None
        found = re.search("^CONFIG_" + name + "=(.*)$", text, re.MULTILINE)
        return found.group(1) if found else "n"

    def bcc(self) -> Tuple[Optional[bool], str, str]:
        """(has BPF, version, file) of the system python's bcc; (None, error, "") without."""
        if self._bcc is None:
            status, out = self.run(SYSTEM_PYTHON, "-I", "-B", "-c", BCC_SCRIPT)
            try:
                works, text, file = json.loads(out)
            except ValueError:
                works, text, file = None, out.strip() or f"exit status {status}", ""
            self._bcc = (works, text, file)
        return self._bcc

    def syscall(self, name: str, *args: object) -> Tuple[int, int]:
        """(result, errno). Raises KeyError on an architecture whose numbers we do not know."""
        number = SYSCALLS[self.arch][name]
        result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *args)
        return result, ctypes.get_errno()


def version(text: str) -> Tuple[int, ...]:
    """The leading numbers of a version.

    >>> version("6.12.57+deb13-amd64"), version("0.36.1")
    ((6, 12, 57), (0, 36, 1))
    """
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def install(package: str) -> str:
    """How to get a package named as Debian and Ubuntu name it."""
    if shutil.which("apt-get"):
        return f"sudo apt-get install {package}"
    return f"install what this distribution calls {package}"


# --- privilege and BCC ---------------------------------------------------------------


def check_root(machine: Machine) -> Finding:
    if machine.euid == 0:
        return Finding(YES, "running as root")
    if machine.which("sudo") is None:
        return Finding(NO, "not root, and sudo is not installed", f"run as root, or {USE_GUEST}")
    if machine.run("sudo", "-n", "true")[0] == 0:
        return Finding(YES, "sudo works without a password")
    installed = machine.exists(INSTALLED_STARTER)
    if installed and machine.run("sudo", "-n", "-l", INSTALLED_STARTER)[0] == 0:
        return Finding(YES, f"a sudo rule allows {INSTALLED_STARTER}")
    fix = f"sudo .venv/bin/ebpflab setup-sudo, or {USE_GUEST}"
    return Finding(NO, "not root, and sudo would ask for a password", fix)


def check_bcc(machine: Machine) -> Finding:
    if not machine.exists(SYSTEM_PYTHON):
        return Finding(NO, f"there is no {SYSTEM_PYTHON}", install("python3 python3-bpfcc"))
    works, text, file = machine.bcc()
    if works:
        return Finding(YES, f"{SYSTEM_PYTHON} imports BCC {text} from {file}")
    if works is None:
        reason = f"{SYSTEM_PYTHON} cannot import bcc ({text})"
        return Finding(NO, reason, install("python3-bpfcc"))
    fix = f"remove that one (pip uninstall bcc), then {install('python3-bpfcc')}"
    return Finding(NO, f"{file} is another project that is also called bcc", fix)


def check_bcc_version(machine: Machine) -> Finding:
    works, text, _ = machine.bcc()
    kernel, bcc = version(machine.release), version(text)
    if not works:
        return Finding(UNKNOWN, "there is no BCC to compare with", install("python3-bpfcc"))
    if not bcc:
        return Finding(UNKNOWN, f"BCC does not tell its version ({text!r})", USE_GUEST)
    needed = next((least for since, least in BCC_FOR_KERNEL if kernel >= since), (0,))
    if bcc < needed:
        least = ".".join(map(str, needed))
        reason = f"BCC {text} fails on headers of kernel {machine.release} like linux/fs.h and"
        reason += f" net/sock.h, which need BCC {least}; what includes fewer compiles"
        fix = f"for such programs upgrade to a release with BCC {least}, or {USE_GUEST}"
        return Finding(UNKNOWN, reason, fix)
    if kernel >= (5, 15) and bcc < (0, 19):
        reason = f"BCC {text} fails on network headers of kernel 5.15; the rest compiles"
        return Finding(UNKNOWN, reason, f"for network programs {USE_GUEST}")
    return Finding(YES, f"BCC {text} knows kernel {machine.release}")


def headers_release(machine: Machine, tree: str) -> Optional[str]:
    """Which kernel a tree of headers says it belongs to."""
    text = machine.read(tree + "/include/generated/utsrelease.h") or ""
    found = re.search(r'UTS_RELEASE "([^"]+)"', text)
    if found:
        return found.group(1)
    text = machine.read(tree + "/include/config/kernel.release") or ""
    return text.strip() or None


def check_headers(machine: Machine) -> Finding:
    wanted = machine.release
    fix = USE_GUEST
    if re.search("-(amd64|arm64|generic|[a-z]+-amd64)$", wanted):  # a distribution's own kernel
        fix = f"{install('linux-headers-' + wanted)}, or {USE_GUEST}"
    tree = f"/lib/modules/{wanted}/build"
    if machine.exists(tree):
        found = headers_release(machine, tree)
        if found == wanted:
            return Finding(YES, f"{tree} is for {wanted}")
        if found is None:
            return Finding(UNKNOWN, f"{tree} does not say which kernel it is for", fix)
        reason = f"{tree} is for {found}: programs would read structs at wrong offsets"
        return Finding(NO, reason, fix)
    others = glob.glob(machine.path("/lib/modules/*/build"))
    reason = f"none for {wanted}"
    # BCC 0.26 takes them, as root, from a folder in /tmp that anybody may make (CVE-2024-2314).
    if machine.exists("/sys/kernel/kheaders.tar.xz"):
        reason += " (its own /sys/kernel/kheaders.tar.xz is not used)"
    if others:
        newest = max((version(name), name) for name in (path.split("/")[-2] for path in others))
        reason += f"; uprobes and USDT probes can borrow those of {newest[1]}"
    return Finding(NO, reason, fix)


# --- the kernel ----------------------------------------------------------------------


def check_tracefs(machine: Machine) -> Finding:
    for line in (machine.read("/proc/mounts") or "").splitlines():
        _, where, kind = line.split()[:3]
        if kind == "tracefs":
            readable = os.access(machine.path(where + "/events"), os.R_OK)
            return Finding(YES, f"at {where}" + ("" if readable else ", readable by root only"))
    if "tracefs" in (machine.read("/proc/filesystems") or "tracefs"):
        fix = "sudo mount -t tracefs nodev /sys/kernel/tracing"
        return Finding(NO, "the kernel has it, but it is not mounted", fix)
    return Finding(NO, "this kernel was built without it", f"a distribution kernel, or {USE_GUEST}")


def check_pmu(name: str, option: str, machine: Machine) -> Finding:
    """A probe kind that the kernel offers as a performance monitoring unit (since 4.17)."""
    pmu = "/sys/bus/event_source/devices/" + name
    if machine.exists(pmu):
        return Finding(YES, f"{pmu} is there")
    value = machine.option(option)
    fix = f"boot a distribution kernel, or {USE_GUEST}"
    if value == "n":
        return Finding(NO, f"this kernel was built without CONFIG_{option}", fix)
    if machine.exists("/sys/bus/event_source/devices"):
        return Finding(NO, f"{pmu} is missing", fix)
    return Finding(UNKNOWN, "/sys is not mounted, or hides the kernel's event sources", fix)


def check_sdt(machine: Machine) -> Finding:
    for folder in ("/usr/include", f"/usr/include/{machine.arch}-linux-gnu"):
        if machine.exists(folder + "/sys/sdt.h"):
            return Finding(YES, f"{folder}/sys/sdt.h")
    fix = f"{install('systemtap-sdt-dev')} (only to build programs with USDT probes)"
    return Finding(NO, "sys/sdt.h is not installed", fix)


def check_perf_events(machine: Machine) -> Finding:
    paranoid = (machine.read("/proc/sys/kernel/perf_event_paranoid") or "").strip()
    if not paranoid:
        return Finding(NO, "this kernel was built without perf events", USE_GUEST)
    # perf_event_attr: software event, its size, the CPU clock; flag 0x60 leaves the kernel
    # and the hypervisor out, so that an ordinary user may ask as well.
    attr = ctypes.create_string_buffer(struct.pack("<IIQQQQQ", 1, 64, 0, 0, 0, 0, 0x60), 64)
    fd, errno = machine.syscall("perf", attr, 0, -1, -1, 0)
    if fd >= 0:
        os.close(fd)
        return Finding(YES, f"the CPU clock counts (perf_event_paranoid is {paranoid})")
    reason = f"perf_event_open: {os.strerror(errno)} (perf_event_paranoid is {paranoid})"
    if machine.euid != 0:
        return Finding(UNKNOWN, reason + "; root may be allowed", "ask again as root")
    return Finding(NO, reason, f"run outside of a container if this is one, or {USE_GUEST}")


def check_ring_buffer(machine: Machine) -> Finding:
    by_version = f"kernel {machine.release}; ring buffers exist since 5.8"
    if version(machine.release) < (5, 8):
        return Finding(NO, by_version, f"a kernel from 5.8 on, or {USE_GUEST}")
    if machine.euid != 0:
        return Finding(YES, by_version + " (not tried: that needs root)")
    # bpf(BPF_MAP_CREATE): map type 27 is the ring buffer; one page of it.
    attr = ctypes.create_string_buffer(struct.pack("<IIII", 27, 0, 0, mmap.PAGESIZE), 72)
    fd, errno = machine.syscall("bpf", 0, attr, len(attr))
    if fd >= 0:
        os.close(fd)
        return Finding(YES, "one could be made")
    reason = f"bpf(BPF_MAP_CREATE): {os.strerror(errno)} ({by_version})"
    return Finding(NO, reason, f"run outside of a container if this is one, or {USE_GUEST}")


def check_btf(machine: Machine) -> Finding:
    if machine.exists("/sys/kernel/btf/vmlinux"):
        return Finding(YES, "/sys/kernel/btf/vmlinux")
    fix = "nothing for the chapters, which do not need it; else a distribution kernel"
    return Finding(NO, "there is no /sys/kernel/btf/vmlinux", fix)


def check_fentry(machine: Machine) -> Finding:
    """Ask the verifier for an fentry program on type 1, which is no function: it must say so."""
    fix = f"kprobes and tracepoints do without; else {USE_GUEST}"
    if machine.euid != 0:
        return Finding(UNKNOWN, "only root may try", "ask again as root")
    # r0 = 0; exit. Program type 26 is BPF_PROG_TYPE_TRACING, attach type 24 BPF_TRACE_FENTRY.
    code = ctypes.create_string_buffer(bytes.fromhex("b7" + "00" * 7 + "95" + "00" * 7), 16)
    license_, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(4096)
    places = [ctypes.addressof(each) for each in (code, license_, log)]
    packed = struct.pack("<IIQQIIQ28xI36xI", 26, 2, *places[:2], 1, len(log), places[2], 24, 1)
    attr = ctypes.create_string_buffer(packed, 128)
    fd, errno = machine.syscall("bpf", 5, attr, len(attr))
    if fd >= 0:
        os.close(fd)
    if fd >= 0 or b"not a function" in log.value:
        return Finding(YES, "the verifier takes such programs")
    return Finding(NO, f"bpf(BPF_PROG_LOAD) of such a program: {os.strerror(errno)}", fix)


def check_lockdown(machine: Machine) -> Finding:
    state = machine.read("/sys/kernel/security/lockdown")
    boot = " and Secure Boot is on" if _secure_boot(machine) else ""
    if state is None:
        if machine.option("SECURITY_LOCKDOWN_LSM") == "n" or version(machine.release) < (5, 4):
            return Finding(YES, "this kernel has no lockdown" + boot)
        if boot:
            reason = "Secure Boot is on, and /sys/kernel/security/lockdown cannot be read"
            return Finding(UNKNOWN, reason, "ask again as root")
        fix = "sudo mount -t securityfs nodev /sys/kernel/security, and ask again"
        return Finding(UNKNOWN, "/sys/kernel/security/lockdown cannot be read", fix)
    found = re.search(r"\[(\w+)\]", state)
    mode = found.group(1) if found else state.strip()
    if mode == "confidentiality":
        fix = f"turn Secure Boot off in the firmware, boot with lockdown=integrity, or {USE_GUEST}"
        return Finding(NO, f"lockdown is {mode}{boot}: kernel memory must not be read", fix)
    return Finding(YES, f"lockdown is {mode}{boot}: kernel memory may be read")


def _secure_boot(machine: Machine) -> bool:
    guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"  # EFI_GLOBAL_VARIABLE
    value = machine.read(f"/sys/firmware/efi/efivars/SecureBoot-{guid}") or ""
    return value[-1:] == "\x01"  # four bytes of attributes, then the flag


def check_container(machine: Machine) -> Finding:
    if "microsoft" in machine.release.lower():
        fix = f"install headers for this kernel from its source, or {USE_GUEST}"
        return Finding(NO, "this is WSL2: its kernel has no header packages", fix)
    try:
        namespace = os.readlink(machine.path("/proc/self/ns/pid"))
    except OSError as error:
        return Finding(UNKNOWN, f"/proc/self/ns/pid: {error.strerror}", "mount /proc")
    if namespace == INITIAL_PID_NAMESPACE:
        return Finding(YES, "processes have the same pid here and in the kernel")
    fix = f"run outside of the container (or with --pid=host --privileged), or {USE_GUEST}"
    return Finding(NO, "this is a container: the kernel reports pids that mean nothing here", fix)


# --- tools ---------------------------------------------------------------------------


def check_go(machine: Machine) -> Finding:
    go = machine.which("go", "/usr/local/go/bin", "/usr/lib/go/bin")
    if go is None:
        return Finding(NO, "go is not installed", install("golang-go") + " (or use the guest's)")
    status, out = machine.run(go, "version")
    if status == 0:
        return Finding(YES, f"{out.strip()} ({go})")
    return Finding(NO, f"{go} version: exit status {status}", install("golang-go"))


def check_kvm(machine: Machine) -> Finding:
    slow = "nothing: without KVM the guest is emulated, several times slower"
    if not machine.exists("/dev/kvm"):
        fix = f"turn virtualisation on in the firmware; or {slow}"
        return Finding(NO, "there is no /dev/kvm", fix)
    if not os.access(machine.path("/dev/kvm"), os.R_OK | os.W_OK):
        fix = f"sudo adduser $USER kvm, then log in again; or {slow}"
        return Finding(NO, "/dev/kvm may not be opened", fix)
    reason = "/dev/kvm can be opened; whether QEMU can use it is tried at the first guest's start"
    return Finding(UNKNOWN, reason, slow)


def check_qemu(machine: Machine) -> Finding:
    name = "qemu-system-" + machine.arch
    found = machine.which(name)
    if found:
        return Finding(YES, found)
    package = "qemu-system-x86" if machine.arch == "x86_64" else "qemu-system-arm"
    return Finding(NO, f"{name} is not installed", install(f"{package} qemu-utils"))


def check_mmdebstrap(machine: Machine) -> Finding:
    found = machine.which("mmdebstrap")
    if found:
        return Finding(YES, found)
    reason = "mmdebstrap, which builds the guest, is not installed"
    return Finding(NO, reason, install("mmdebstrap uidmap"))


CHECKS: Dict[str, Callable[[Machine], Finding]] = {
    "root or sudo": check_root,
    "BCC": check_bcc,
    "BCC for this kernel": check_bcc_version,
    "kernel headers": check_headers,
    "tracefs": check_tracefs,
    "kprobes": partial(check_pmu, "kprobe", "KPROBE_EVENTS"),
    "uprobes": partial(check_pmu, "uprobe", "UPROBE_EVENTS"),
    "tracepoints": partial(check_pmu, "tracepoint", "TRACEPOINTS"),
    "USDT (sys/sdt.h)": check_sdt,
    "perf events": check_perf_events,
    "ring buffer": check_ring_buffer,
    "BTF": check_btf,
    "fentry, fexit": check_fentry,
    "no lockdown": check_lockdown,
    "no container, no WSL2": check_container,
    "Go": check_go,
    "KVM": check_kvm,
    "qemu": check_qemu,
    "mmdebstrap": check_mmdebstrap,
}


def probe(machine: Optional[Machine] = None) -> List[Dict[str, str]]:
    """A row for every check, in the order a learner should mend them. Never raises."""
    machine = machine or Machine()
    rows = []
    for feature, check in CHECKS.items():
        try:
            finding = check(machine)
        except Exception as error:
            reason = f"the check itself failed: {type(error).__name__}: {error}"
            finding = Finding(UNKNOWN, reason, "report this, with the output of `ebpflab doctor`")
        rows.append({"feature": feature, **finding._asdict()})
    return rows


if __name__ == "__main__":
    print(json.dumps(probe()))
