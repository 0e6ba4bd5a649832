"""fentry, fexit and LSM probes: a function of the kernel, through a trampoline.

BCC calls them KFUNC_PROBE, KRETFUNC_PROBE and LSM_PROBE. The kernel calls them through a
*trampoline*, a piece of machine code that it makes for the function's own arguments, which it
knows from BTF, its table of types. So the function is named when the program is loaded, not when
it is attached, and BCC's loader takes it from the name of the C function.
"""

import os
from functools import partial
from typing import Optional

import bcc

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import names
from ebpflab.agent.probes.kind import Kind, by_bcc, place
from ebpflab.agent.probes.kprobe import explain_missing
from ebpflab.protocol.messages import Where

TABLE = "/sys/kernel/btf/vmlinux"
_KINDS = {  # in words, and how the name of the C function begins
    "kfunc": ("an fentry probe", "kfunc__"),
    "kretfunc": ("an fexit probe", "kretfunc__"),
    "fmod_ret": ("a probe that changes the result", "kmod_ret__"),
    "lsm": ("an LSM probe", "lsm__"),
}


def _explain_load(kind: str, function: str, log: str) -> Optional[Fault]:
    """Why the kernel would not load a function for its place; None when its C is the reason."""
    target = place(function, {})
    what = f"Cannot attach {_KINDS[kind][0]} to {target!r}: "
    if not os.path.exists(TABLE):
        return Fault(
            "AttachError",
            f"{what}this kernel ({os.uname().release}) has no BTF, the table of its types"
            f" ({TABLE}; CONFIG_DEBUG_INFO_BTF). A kprobe needs none; or use Lab('vm').",
        )
    if "Operation not permitted" in log:
        return Fault(
            "AttachError",
            f"{what}this kernel ({os.uname().release}) does not let root load such programs"
            " (EPERM), see lab.features(). Use a kprobe or a tracepoint, or Lab('vm').",
        )
    if "is not found in" in log:
        return _not_in_btf(kind, target, what)
    return None


def _not_in_btf(kind: str, target: str, what: str) -> Fault:
    if kind == "lsm":
        hooks = [name[len("bpf_lsm_") :] for name in names.kernel_functions("bpf_lsm_*")]
        if hooks:
            return names.unknown("LSM hook", target, hooks)
        return Fault("AttachError", f"{what}this kernel was built without CONFIG_BPF_LSM.")
    if names.is_function(target):
        return Fault(
            "UnknownEvent",
            f"{what}the kernel has this function, and its BTF does not describe it: written in"
            " assembler, changed by the compiler, or several of one name. Use attach_kprobe.",
            name=target,
            closest=[],
        )
    return explain_missing(target)


def _explain(kind: str, function: str, where: Where, complaint: str, log: str) -> Fault:
    return Fault(
        "AttachError",
        f"Cannot attach {_KINDS[kind][0]} to {place(function, where)!r}: the kernel has this"
        " function, and no place in it for a trampoline. It is likely marked notrace. Functions"
        " that have one are listed by lab.kernel_functions('...*').",
    )


KINDS = {
    kind: Kind(
        program_type=bcc.BPF.LSM if kind == "lsm" else bcc.BPF.TRACING,
        words="another kind of probe",
        explain=partial(_explain, kind),
        explain_load=partial(_explain_load, kind),
        prefix=prefix,
        attach=by_bcc(f"attach_{kind}"),
    )
    for kind, (_, prefix) in _KINDS.items()
}
