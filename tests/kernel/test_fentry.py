"""fentry, fexit and LSM probes: exact, typed, named, and refused with the reason."""

from __future__ import annotations

import pytest

from ebpflab import Lab
from ebpflab.errors import AttachError, UnknownEvent, VerifierError

pytestmark = pytest.mark.vm

READS = r"""
struct read_t { u64 asked_bytes; s64 returned_bytes; u32 pid; };
BPF_RINGBUF_OUTPUT(reads, 64);
BPF_ARRAY(entries, u64, 1);

KFUNC_PROBE(vfs_read, struct file *file, char *buf, size_t count) {
  if (count == 7) entries.increment(0);
  return 0;
}
KRETFUNC_PROBE(vfs_read, struct file *file, char *buf, size_t count, loff_t *pos, ssize_t ret) {
  struct read_t read = {.asked_bytes = count, .returned_bytes = ret};
  read.pid = bpf_get_current_pid_tgid() >> 32;
  if (count == 7) reads.ringbuf_output(&read, sizeof(read), 0);
  return 0;
}
"""


def test_entry_and_return_see_every_call_with_its_arguments(lab: Lab) -> None:
    with lab.load(READS) as prog:
        assert [each.split(" -> ")[0] for each in prog.attached] == [
            "kfunc vfs_read",
            "kretfunc vfs_read",
        ]
        done = lab.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=7", "count=1009"])
        reads, stats = prog["reads"].frame(), prog.stats()
        assert list(prog["entries"].frame()["value"]) == [1009]
        prog.attach_kfunc(fn_name="vfs_read")
        assert len(prog.attached) == 2, "it was attached when it was loaded"
        prog.detach()
        prog.attach_kretfunc(fn_name="vfs_read")
        lab.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=7", "count=11"])
        assert len(prog["reads"].frame()) == 1009 + 11
        assert list(prog["entries"].frame()["value"]) == [1009]
    assert len(reads) == 1009
    assert set(reads["pid"]) == {done.pid}
    assert set(reads["asked_bytes"]) == set(reads["returned_bytes"]) == {7}
    assert list(stats["probe"]) == ["kfunc vfs_read", "kretfunc vfs_read"]
    assert (stats["hits"] >= 1009).all() and list(stats["misses"]) == [0, 0]


def test_an_lsm_probe_says_no(lab: Lab) -> None:
    assert "bpf" in lab.run(["cat", "/sys/kernel/security/lsm"]).stdout.split(",")
    source = r"""
    LSM_PROBE(path_mkdir, const struct path *dir, void *dentry, int mode) {
      char comm[16];
      bpf_get_current_comm(&comm, sizeof(comm));
      return comm[0] == 'm' && comm[1] == 'k' && comm[2] == 'd' ? -13 : 0;  /* EACCES */
    }
    """
    folder = lab.run(["mktemp", "-u", "-d"]).stdout.strip()
    with lab.load(source) as prog:
        assert prog.attached[0].startswith("lsm path_mkdir -> lsm__")
        refused = lab.run(["mkdir", folder])
        assert refused.returncode == 1 and "Permission denied" in refused.stderr
    assert lab.run(["mkdir", folder]).returncode == 0
    lab.run(["rmdir", folder])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("KFUNC_PROBE(vfs_raed) { return 0; }", UnknownEvent, "Closest matches: vfs_read"),
        ("LSM_PROBE(path_mkdri) { return 0; }", UnknownEvent, "no LSM hook .*path_mkdir"),
        ("KFUNC_PROBE(task_pid_nr) { return 0; }", UnknownEvent, r"static inline` \(linux/"),
        ("KFUNC_PROBE(entry_SYSCALL_64) { return 0; }", UnknownEvent, "BTF does not describe it"),
        ("KFUNC_PROBE(exc_page_fault) { return 0; }", AttachError, "no place in it"),
        (
            "KFUNC_PROBE(vfs_read, long a, long b, long c, long d, long e) { return e; }",
            VerifierError,
            "There is no such argument",
        ),
    ],
    ids=["misspelt", "hook", "inlined", "assembler", "notrace", "argument"],
)
def test_what_cannot_be_attached_says_why(
    lab: Lab, source: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lab.load(source)
