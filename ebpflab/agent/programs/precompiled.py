"""Precompiled headers: the headers that programs begin with, parsed once instead of each time.

BCC has clang parse the kernel's headers three times for each program: to find tracepoints, to
rewrite the C, and to translate it (``ClangLoader::do_compile``). That is most of a compilation.
clang can write what it has parsed to a file and start from it, given ``-include-pch FILE``.

*One file for a prefix.* A prefix is the ``#include <...>`` lines that a program begins with, and
the ``#define`` lines between them. Its file holds all that clang has seen up to there, from BCC's
own headers on, which exist in libbcc alone and are copied from it. So what follows is parsed in
the very state in which it would be: a header that is not included stays missing. The prefix stays
in the program, where the guards of its headers leave nothing of it. A prefix that clang warns
about has no file: its warnings would be seen once only.

*Making* takes the clang of libbcc's own LLVM, in the background and for idle processors only,
after a prefix was first met. The guest's image brings the prefixes of the chapters: there, this
file runs as a program. clang itself refuses a file whose headers have changed since.
"""

import glob
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

FOLDER = "/var/cache/ebpflab/precompiled"
# What the agent's own flags say that clang wants to be told when a file is made, too.
WARNINGS = ["-Werror=implicit-function-declaration"]
_MOST_FILES, _MOST_BYTES = 24, 256 << 20
_MAKING_SECONDS = 300
# Background work gets a processor that nobody else wants, and ends with the thread that began it.
_IDLE = ["setpriv", "--pdeathsig", "KILL", "chrt", "--idle", "0"]

_LINE = re.compile(
    r"(?:\s|//[^\n\\]*$|/\*(?:(?!\*/).)*\*/)*"  # blank lines and comments
    r"^[ \t]*(#[ \t]*(?:include[ \t]*<[^>\n]+>|define[ \t]+\w+(?:[ \t][^\n\\/\"]*)?))"
    r"[ \t]*(?://[^\n\\]*)?$",
    re.MULTILINE | re.DOTALL,
)
_VARIABLES = ("BCC_KERNEL_SOURCE", "BCC_LINUX_VERSION_CODE", "BCC_KERNEL_MODULES_SUFFIX", "ARCH")
_NAME = re.compile(rb"[A-Za-z_]\w*")

# BCC's own headers: where clang finds them, and a line that no other one has.
_OWN_HEADERS = {
    "include/bcc/bpf.h": b"\n#ifndef _UAPI__LINUX_BPF_H__\n",
    "include/bcc/bpf_workaround.h": b"\n#ifndef __HAVE_BUILTIN_BSWAP16__\n",
    "include/bcc/proto.h": b"\n#ifndef __BCC_PROTO_H\n",
    "include/bcc/helpers.h": b"\n#ifndef __BPF_HELPERS_H\n",
    "lib/clang/include/stdarg.h": b" stdarg.h - Variable argument handling ",
}
# Flags of BCC's that are about its output, and about its main file.
_OUTPUT = ("-emit-llvm-bc", "-emit-llvm-uselists", "-disable-llvm-verifier", "/virtual/main.c")
_OUTPUT_WITH_VALUE = ("-o", "-x", "-main-file-name")
_PRINT_FLAGS = "import bcc, sys; bcc.BPF(text=b'int unused;', cflags=sys.argv[1:], debug=4)"

Prefix = Tuple[str, ...]


def prefix_of(text: str) -> Prefix:
    """The ``#include`` lines that a program begins with, and ``#define`` lines between them.

    >>> prefix_of("// first\\n#include <linux/fs.h>\\n#define N 2\\nint f() { return N; }")
    ('#include <linux/fs.h>',)
    """
    lines: List[str] = []
    at = 0
    while True:
        found = _LINE.match(text, at)
        if found is None:
            break
        lines.append(found.group(1))
        at = found.end()
    while lines and not _is_include(lines[-1]):
        lines.pop()
    return tuple(lines)


def _is_include(line: str) -> bool:
    return line[1:].lstrip().startswith("include")


class Kernel(NamedTuple):
    """The headers that BCC takes: see `headers.Headers.prepare`."""

    release: str
    variables: Tuple[Tuple[str, Optional[str]], ...] = ()

    @classmethod
    def running(cls) -> "Kernel":
        return cls(os.uname().release, tuple((name, os.environ.get(name)) for name in _VARIABLES))

    def environment(self) -> Dict[str, str]:
        known = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
        known.update({name: value for name, value in self.variables if value is not None})
        return known

    def include_folders(self) -> List[str]:
        modules = f"/lib/modules/{self.release}"
        named = dict(self.variables).get("BCC_KERNEL_SOURCE")
        trees = [named] if named else [f"{modules}/source", f"{modules}/build"]
        return [
            folder
            for tree in trees
            for folder in (f"{tree}/include", *glob.glob(f"{glob.escape(tree)}/arch/*/include"))
        ]


class Compiler(NamedTuple):
    """libbcc, and the clang that was built with the LLVM that libbcc uses."""

    libbcc: str
    clang: str

    @classmethod
    def find(cls) -> "Optional[Compiler]":
        """None where it is not installed, or where libbcc has an LLVM of its own inside."""
        import bcc  # noqa: F401  it maps the libraries that are looked for

        with open("/proc/self/maps") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if line.count("/") > 1}
        libbcc = [path for path in paths if re.search(r"/libbcc\.so[.\d]*$", path)]
        versions = {
            found.group(1)
            for found in (re.search(r"/libclang-cpp\.so\.(\d+)", p) for p in paths)
            if found
        }
        if len(libbcc) != 1 or len(versions) != 1:
            return None
        clang = f"/usr/bin/clang-{versions.pop()}"
        return cls(libbcc[0], os.path.realpath(clang)) if os.path.exists(clang) else None

    def identity(self) -> List[Tuple[str, int, int]]:
        states = [(path, os.stat(path)) for path in self]
        return [(path, state.st_size, int(state.st_mtime)) for path, state in states]


class Store:
    """The files of one compiler and one tree of headers, in a folder that only root writes."""

    def __init__(self, compiler: Compiler, kernel: Kernel, folder: str = FOLDER) -> None:
        self.compiler, self.kernel, self.folder = compiler, kernel, folder
        self._base = _digest([compiler.identity(), kernel])

    def path(self, prefix: Prefix, kind: str = "pch") -> str:
        return os.path.join(self.folder, f"{_digest([self._base, prefix])}.{kind}")

    def longest(self, prefix: Prefix) -> Optional[Prefix]:
        """As much of a prefix as there is a file for."""
        for count in range(len(prefix), -1, -1):
            if os.path.exists(self.path(prefix[:count])):
                return prefix[:count]
        return None

    def asks_for(self, macro: str, prefix: Prefix) -> bool:
        """Whether one of the headers names a macro, so that defining it may change them."""
        with open(self.path(prefix, "names"), "rb") as names:
            return f"\n{macro}\n".encode() in names.read()

    def make(self, prefix: Prefix, running: "Optional[Running]" = None) -> Optional[str]:
        """Make the file of a prefix; why that is not possible, or None."""
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        state = os.stat(self.folder)
        if state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{self.folder} can be written by others"
        try:
            with tempfile.TemporaryDirectory(prefix=".making-", dir=self.folder) as making:
                return self._make(prefix, making, running or Running())
        except (OSError, ValueError) as error:
            return str(error)

    def _make(self, prefix: Prefix, making: str, running: "Running") -> Optional[str]:
        source, made, needed = self.path(prefix, "h"), f"{making}/pch", f"{making}/needed"
        _write(source, "".join(line + "\n" for line in prefix).encode())
        tree, flags = self._flags(running)
        command = [self.compiler.clang, *flags, "-emit-pch", "-o", made, "-x", "c-header", source]
        command += ["-dependency-file", needed, "-MT", "pch", "-sys-header-deps"]
        status, printed = running.run(command, tree)
        if status or printed:
            return printed[:2000] or f"clang ended with status {status}"
        with open(needed) as file:
            paths = file.read().replace("\\\n", " ").split()[1:]
        names = set()
        for path in paths:
            with open(os.path.join(tree, path), "rb") as header:
                names.update(_NAME.findall(header.read()))
        _write(self.path(prefix, "names"), b"\n%s\n" % b"\n".join(sorted(names)))
        os.rename(made, self.path(prefix))
        self._forget_oldest()
        return None

    def _flags(self, running: "Running") -> Tuple[str, List[str]]:
        """The folder in which BCC runs clang for this kernel, and with which flags."""
        kept = self._kept_flags()
        try:
            with open(kept) as file:
                tree, flags = json.load(file)
        except (OSError, ValueError):
            own = self._own_headers()
            command = [sys.executable, "-I", "-B", "-c", _PRINT_FLAGS, *WARNINGS]
            _, printed = running.run(command, own, self.kernel.environment())
            printed = printed.replace(os.uname().release, self.kernel.release)
            tree, flags = _read_flags(printed, own)
            _write(kept, json.dumps([tree, flags]).encode())
        return tree, flags

    def _own_headers(self) -> str:
        """A folder with BCC's own headers, which name themselves as they are named in libbcc."""
        folder = os.path.join(self.folder, f"{_digest(self.compiler.identity())}.own")
        with open(self.compiler.libbcc, "rb") as file:
            library = file.read()
        for name, text in own_headers(library).items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            _write(path, b'#line 1 "/virtual/%s"\n%s' % (name.encode(), text))
        return folder

    def tree(self) -> str:
        """The folder in which BCC runs clang."""
        with open(self._kept_flags()) as file:
            return str(json.load(file)[0])

    def _kept_flags(self) -> str:
        return os.path.join(self.folder, f"{self._base}.flags")

    def use(self, prefix: Prefix) -> str:
        """The path of a prefix's file, which is now the one that was used last."""
        path = self.path(prefix)
        os.utime(path)
        return path

    def forget(self, prefix: Prefix) -> None:
        _unlink(self.path(prefix)[: -len("pch")])

    def _forget_oldest(self) -> None:
        paths = [os.path.join(self.folder, name) for name in os.listdir(self.folder)]
        files = [(os.stat(path), path) for path in paths if path.endswith(".pch")]
        files.sort(key=lambda each: each[0].st_mtime, reverse=True)
        size_bytes = 0
        for count, (state, path) in enumerate(files):
            size_bytes += state.st_size
            if count and (count >= _MOST_FILES or size_bytes > _MOST_BYTES):
                _unlink(path[: -len("pch")])


def _unlink(stem: str) -> None:
    for kind in ("pch", "names", "h"):
        try:
            os.unlink(stem + kind)
        except FileNotFoundError:
            pass


def _write(path: str, data: bytes) -> None:
    """Write a file at once. Without a time: clang would refuse what is written again."""
    descriptor, new = tempfile.mkstemp(dir=os.path.dirname(path))
    with open(descriptor, "wb") as file:
        file.write(data)
    os.chmod(new, 0o644)
    os.utime(new, (0, 0))
    os.rename(new, path)


def own_headers(library: bytes) -> Dict[str, bytes]:
    """The texts of BCC's own headers in libbcc; those that cannot be told are left out."""
    texts = {}
    for name, mark in _OWN_HEADERS.items():
        at = library.find(mark)
        if at < 0 or library.find(mark, at + 1) >= 0:
            continue
        end = library.find(b"\0", at)
        start = max(library.rfind(bytes([code]), 0, at) for code in (*range(9), *range(14, 32)))
        # Each text begins with a new line; before it may be a byte of what lies in front of it.
        texts[name] = library[library.index(b"\n", start) : end]
    return texts


def _read_flags(printed: str, own: str) -> Tuple[str, List[str]]:
    """Of what BCC prints of its work: where it runs clang, and clang's flags for a header."""
    found = re.search(r"^clang (-cc1 .*)$", printed, re.MULTILINE)
    where = re.search(r"-fdebug-compilation-dir[= ](\S+)", printed)
    if found is None or where is None:
        raise ValueError(f"BCC does not print its flags: {printed[-500:]}")
    words = iter(found.group(1).split(" "))
    flags: List[str] = []
    for word in words:
        if word in _OUTPUT_WITH_VALUE:
            next(words)
        elif word not in _OUTPUT:
            flags.append(word.replace("/virtual/", own + "/"))
    at = flags.index(own)  # where BCC was called is looked at first: see Precompiled._hidden
    del flags[at - 1 : at + 1]
    return where.group(1), flags


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]


class Running:
    """Runs commands for idle processors, and can be told to wait while a program is compiled."""

    def __init__(self, idle: bool = False) -> None:
        self._prefix = _IDLE if idle else []
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        self._lock = threading.Lock()
        self._pauses = 0

    def run(
        self, command: Sequence[str], cwd: str, env: Optional[Dict[str, str]] = None
    ) -> Tuple[int, str]:
        """The command's status, and all that it has printed."""
        with tempfile.TemporaryFile() as output:
            with self._lock:
                self._process = process = subprocess.Popen(
                    [*self._prefix, *command],
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
                if self._pauses:
                    process.send_signal(signal.SIGSTOP)
            try:
                process.wait(_MAKING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with self._lock:
                self._process = None
            output.seek(0)
            return process.returncode, output.read(1 << 20).decode(errors="replace")

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, pauses: int) -> None:
        with self._lock:
            self._pauses += pauses
            if self._process is not None:
                self._process.send_signal(signal.SIGSTOP if self._pauses else signal.SIGCONT)


def main(release: str, folder: str, texts: Iterable[str]) -> None:
    """Make the files of the prefixes of programs, for a kernel that need not run yet."""
    compiler = Compiler.find()
    if compiler is None:
        print("precompiled: nothing, as there is no clang of libbcc's LLVM")
        return
    modules = os.path.join("/lib/modules", os.uname().release)
    borrowed = not os.path.exists(modules)
    if borrowed:  # BCC looks there, whatever it is told
        os.symlink(release, modules)
    try:
        store = Store(compiler, Kernel(release, tuple((name, None) for name in _VARIABLES)), folder)
        for prefix in sorted({prefix_of(text) for text in texts}):
            problem = store.make(prefix)
            print("precompiled:", "; ".join(prefix) or "BCC's own headers", problem or "")
    finally:
        if borrowed:
            os.unlink(modules)


if __name__ == "__main__":
    main(sys.argv[1], FOLDER, ["", *sys.stdin.read().split("\n\n")])
