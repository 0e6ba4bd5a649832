"""fentry, fexit and LSM probes: why one was refused.

BCC calls them KFUNC_PROBE, KRETFUNC_PROBE and LSM_PROBE. The kernel calls them through a
*trampoline*, a piece of machine code that it makes for the function's own arguments, which it
knows from BTF, its table of types. So the function is named when the program is loaded, not when
it is attached, and BCC's loader takes it from the name of the C function.
"""

import os
from typing import Optional

import discover
import named
from faults import Fault

TABLE = "/sys/kernel/btf/vmlinux"


def explain_load(kind: str, place: str, log: str) -> Optional[Fault]:
    """Why the kernel would not load a function for ``place``; None when its C is the reason."""
    what = f"Cannot attach {named.TRAMPOLINES[kind]} to {place!r}: "
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
        return _not_in_btf(kind, place, what)
    return None


def _not_in_btf(kind: str, place: str, what: str) -> Fault:
    if kind == "lsm":
        hooks = [name[len("bpf_lsm_") :] for name in discover.kernel_functions("bpf_lsm_*")]
        if hooks:
            return discover.unknown("LSM hook", place, hooks)
        return Fault("AttachError", f"{what}this kernel was built without CONFIG_BPF_LSM.")
    if discover.is_function(place):
        return Fault(
            "UnknownEvent",
            f"{what}the kernel has this function, and its BTF does not describe it: written in"
            " assembler, changed by the compiler, or several of one name. Use attach_kprobe.",
            name=place,
            closest=[],
        )
    return discover.explain_missing(place)
