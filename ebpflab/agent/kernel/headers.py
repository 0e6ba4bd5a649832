"""Kernel headers for BCC: those of the running kernel, or borrowed ones with a warning.

BCC compiles against ``/lib/modules/$(uname -r)/build``. Two things go wrong there:

* The link points at another kernel's headers. Programs compile, and read struct fields at
  wrong offsets in silence. So the headers' own release is compared with the kernel's.
* There are no headers. Then the newest headers installed are *borrowed*: a merged tree
  of symbolic links (made once, in ``/var/cache/ebpflab``) is named by ``BCC_KERNEL_SOURCE``, and
  ``BCC_LINUX_VERSION_CODE`` keeps the running kernel's version. ``pt_regs``, uapi headers and
  tracepoint formats do not differ between versions; every other kernel struct may, so programs
  that include kernel-internal headers are refused unless the caller names a tree.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import List, Optional

from ebpflab.agent.faults import Fault
from ebpflab.protocol import messages
from ebpflab.protocol.closest import closest

STABLE = re.compile(r"^(uapi/|asm/ptrace\.h$|linux/(ptrace|types|bpf|version|kconfig)\.h$|bcc/)")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
_READERS_ERROR = re.compile(r"^/virtual/main\.c:\d+:\d+: (?:fatal )?error: ", re.MULTILINE)
_HEADERS_ERROR = re.compile(r"^\S+\.h:\d+:\d+: (?:fatal )?error: ", re.MULTILINE)
INSTALL = "sudo apt-get install linux-headers-$(uname -r)"


def release_of(tree: Path) -> Optional[str]:
    """The kernel release that a headers tree was made for, or None when it does not tell."""
    for name, pattern in (
        # What `uname -r` says. Debian 12's kernel.release says 6.1.192 where this says 6.1.0-56.
        ("include/generated/utsrelease.h", r'UTS_RELEASE\s+"([^"]+)"'),
        ("include/config/kernel.release", r"(\S+)"),
    ):
        try:
            found = re.search(pattern, (tree / name).read_text())
        except OSError:
            continue
        if found:
            return found.group(1)
    return None


def include_folders() -> List[Path]:
    """The folders that ``#include <linux/...>`` is looked up in, as far as they are here."""
    modules = Path("/lib/modules") / os.uname().release
    trees = [modules / "source", modules / "build"]
    trees += sorted(Path("/usr/src").glob("linux-headers-*-common"))[-1:]
    return [tree / "include" for tree in trees if (tree / "include").is_dir()]


def similar(name: str) -> List[str]:
    """The headers of the same folder whose names are like that of ``name``, which is not there."""
    folder = os.path.dirname(name)
    known = {
        os.path.join(folder, path.name)
        for include in include_folders()
        for path in (include / folder).glob("*.h")
    }
    return closest(name, sorted(known))


def explain_missing(missing: Optional[str], log: str) -> Optional[Fault]:
    """The fault where BCC found no headers, or not the one of this name, which it needs itself."""
    if not missing and "kernel headers" not in log:
        return None
    what = f"its header {missing!r} is" if missing else "its headers are"
    return Fault(
        "HeadersError",
        f"BCC cannot compile for this kernel ({os.uname().release}): {what} missing."
        f" Install them: {INSTALL}",
        log=log,
    )


def are_blamed(log: str) -> bool:
    """Whether clang objects to a header, and to nothing in the reader's own program."""
    return bool(_HEADERS_ERROR.search(log)) and not _READERS_ERROR.search(log)


class Headers:
    """Chooses headers before each compilation: a tree that was named counts for that one."""

    def __init__(
        self,
        modules: Path = Path("/lib/modules"),
        src: Path = Path("/usr/src"),
        cache: Path = Path("/var/cache/ebpflab"),
    ) -> None:
        self._modules, self._src, self._cache = modules, src, cache
        self._release = os.uname().release
        self._build = modules / self._release / "build"
        self.state = messages.HeadersState(headers=None, matching=False, path=None)

    def prepare(self, named: Optional[str]) -> messages.HeadersState:
        """Set BCC's environment. Returns ``{"headers": release, "matching": bool, "path"}``.

        ``named`` is a tree that the caller insists on. Raises HeadersError.
        """
        if named:
            self.state = self._use(Path(named), named_by_caller=True)
        else:
            own = release_of(self._build) if self._build.is_dir() else None
            if own == self._release:
                os.environ.pop("BCC_KERNEL_SOURCE", None)
                self.state = {"headers": own, "matching": True, "path": str(self._build)}
            elif own is not None:
                raise Fault(
                    "HeadersError",
                    f"The headers in {self._build} are those of kernel {own}, but kernel"
                    f" {self._release} is running: programs would compile and read struct fields"
                    f" at wrong places. Install matching ones ({INSTALL}), or reboot into {own}.",
                )
            else:
                self.state = self._borrow()
        return self.state

    def check(self, source: str, named: Optional[str]) -> None:
        """Refuse kernel-internal headers when the tree is another kernel's."""
        if named or self.state["matching"]:
            return
        internal = [name for name in _INCLUDE.findall(source) if not STABLE.match(name)]
        if internal:
            raise Fault(
                "HeadersError",
                f"This program includes <{internal[0]}>, whose structs differ from kernel to"
                f" kernel, and the headers at hand are those of {self.state['headers']}, not of"
                f" the running {self._release}. Use Lab('vm'), whose headers match its kernel,"
                f" or install matching headers ({INSTALL}).",
                includes=internal,
            )

    def _use(self, tree: Path, named_by_caller: bool) -> messages.HeadersState:
        if not (tree / "include").is_dir():
            raise Fault("HeadersError", f"There is no kernel headers tree at {tree}.")
        version = re.match(r"(\d+)\.(\d+)\.?(\d*)", self._release)
        assert version is not None
        major, minor, patch = (int(part or 0) for part in version.groups())
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        os.environ["BCC_LINUX_VERSION_CODE"] = str((major << 16) + (minor << 8) + min(patch, 255))
        release = release_of(tree)
        return {
            "headers": release,
            "matching": release == self._release,
            "path": str(tree) if named_by_caller else None,
        }

    def _borrow(self) -> messages.HeadersState:
        flavours = self._installed()
        if not flavours:
            raise Fault(
                "HeadersError",
                f"There are no kernel headers at {self._build}, and none to borrow in"
                f" {self._src}. Install them ({INSTALL}), or use Lab('vm').",
            )
        flavour = flavours[-1]
        # Debian links the part that flavours have in common; Ubuntu's flavours link into theirs.
        common = self._modules / str(release_of(flavour)) / "source"
        tree = self._cache / flavour.name
        if not (tree / "include/linux/kconfig.h").exists():  # there is none, or part of one
            shutil.rmtree(str(tree), ignore_errors=True)
            self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=str(self._cache)))
            for part in (common, flavour):
                if part.is_dir():
                    _link_tree(part, making)
            try:
                making.rename(tree)
            except OSError:  # another session was quicker
                shutil.rmtree(str(making))
        return self._use(tree, named_by_caller=False)

    def _installed(self) -> List[Path]:
        def version(path: Path) -> List[int]:
            return [int(number) for number in re.findall(r"\d+", path.name)]

        trees = [
            path
            for path in self._src.glob("linux-headers-*")
            if release_of(path) and "-rt" not in path.name
        ]
        return sorted(trees, key=version)


def _link_tree(source: Path, into: Path) -> None:
    """The same folders, be they links in ``source``, with a symbolic link for each file."""
    for folder, _, files in os.walk(str(source), followlinks=True):
        target = into / os.path.relpath(folder, str(source))
        target.mkdir(parents=True, exist_ok=True)
        for name in files:
            link = target / name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(os.path.join(folder, name))
