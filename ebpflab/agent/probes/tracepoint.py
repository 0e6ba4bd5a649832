"""Tracepoints and raw tracepoints: places that the kernel's authors have marked."""

import bcc

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import names
from ebpflab.agent.probes.kind import Kind, by_bcc
from ebpflab.protocol.messages import Where


def explain_tracepoint(tp: str, function: str) -> Fault:
    """Why ``function`` could not be attached to the tracepoint ``tp``."""
    known = names.tracepoints("*")
    if tp in known:
        record = "tracepoint__" + tp.replace(":", "__")
        return Fault(
            "AttachError",
            f"The kernel does not let {function!r} run at {tp!r}: it reads beyond the tracepoint's"
            f" record. Its parameter must be that record, `struct {record} *args`; what takes"
            " `struct pt_regs *ctx` is for kprobes and uprobes.",
        )
    category, _, name = tp.rpartition(":")
    meant = [other for other in known if other.split(":")[1] == name]
    hint = "" if category else " A tracepoint is named category:name."
    if not meant and name in names.functions():
        hint += f" The kernel has a function {name!r}: attach_kprobe(event={name!r}, fn_name=...)."
    return names.unknown("tracepoint", tp, known, meant, hint)


def _explain_raw_tracepoint(tp: str) -> Fault:
    """Why nothing could be attached to the raw tracepoint ``tp``."""
    known, name = names.raw_tracepoints(), tp.rpartition(":")[2]
    if tp in known:
        return Fault("AttachError", f"The kernel refuses a program at the raw tracepoint {tp!r}.")
    hint = " A raw tracepoint is named without a category." if ":" in tp else ""
    return names.unknown("raw tracepoint", tp, known, [name] if name in known else (), hint)


def _explain(function: str, where: Where, complaint: str, log: str) -> Fault:
    return explain_tracepoint(where["tp"], function)


def _explain_raw(function: str, where: Where, complaint: str, log: str) -> Fault:
    return _explain_raw_tracepoint(where["tp"])


KINDS = {
    "tracepoint": Kind(
        program_type=bcc.BPF.TRACEPOINT,
        words="a tracepoint",
        explain=_explain,
        prefix="tracepoint__",
        named=lambda after, bpf: Where(tp=after.replace("__", ":")),
        attach=by_bcc("attach_tracepoint"),
    ),
    "raw_tracepoint": Kind(
        program_type=bcc.BPF.RAW_TRACEPOINT,
        words="a raw tracepoint",
        explain=_explain_raw,
        prefix="raw_tracepoint__",
        named=lambda after, bpf: Where(tp=after),
        attach=by_bcc("attach_raw_tracepoint"),
    ),
}
