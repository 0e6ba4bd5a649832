"""Targets: where the agent runs. `choose` picks one."""

from __future__ import annotations

import os

from ebpflab.agent import features as agent_features
from ebpflab.errors import TargetError, suggest
from ebpflab.features import can_trace_kernel
from ebpflab.targets.base import Target
from ebpflab.targets.local import LocalTarget
from ebpflab.targets.ssh import SshTarget
from ebpflab.targets.vm import VmTarget

TARGETS: dict[str, type[Target]] = {"local": LocalTarget, "vm": VmTarget}


def choose(name: str) -> tuple[Target, str]:
    """The target called ``name`` and, when the choice was ours, one line that says why.

    "auto" is EBPFLAB_TARGET where that is set, else the first of local and vm that can do what
    the chapters need. Raises TargetError.
    """
    if name == "auto":
        wished = os.environ.get("EBPFLAB_TARGET", "")
        if wished and wished != "auto":
            return _named(wished), f"Tracing {wished!r}, as EBPFLAB_TARGET says."
        return _automatic()
    return _named(name), ""


def _named(name: str) -> Target:
    if name.startswith("ssh:"):
        return SshTarget(name)
    try:
        return TARGETS[name]()
    except KeyError:
        raise TargetError(
            f"There is no target {name!r}. Targets: auto, {', '.join(TARGETS)},"
            " ssh://user@host."
            f"{suggest(name, TARGETS)}"
        ) from None


def _automatic() -> tuple[Target, str]:
    local, vm = LocalTarget(), VmTarget()
    able, why = can_trace_kernel(agent_features.probe())
    if able and local.unavailable() is None:
        return local, f"Tracing this machine's own kernel: {why}."
    reason = why if not able else local.unavailable()
    if vm.unavailable() is None:
        return vm, f"Tracing a VM, because this machine cannot be traced: {reason}."
    raise TargetError(
        "No machine to trace.\n"
        f"  local: {reason}\n"
        f"  vm: {vm.unavailable()}\n"
        "`ebpflab doctor` shows every condition and its fix."
    )
