"""Targets: where the agent runs. `choose` picks one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

from ebpflab.agent.kernel import features as checks
from ebpflab.errors import TargetError
from ebpflab.protocol.closest import suggest
from ebpflab.protocol.messages import Feature
from ebpflab.targets.features import can_trace_kernel
from ebpflab.targets.local import LocalTarget
from ebpflab.targets.replay import ReplayTarget
from ebpflab.targets.ssh import SshTarget
from ebpflab.targets.vm import VmTarget
from ebpflab.transport.base import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "local": LocalTarget,
    "vm": VmTarget,
    "replay": ReplayTarget,
}


def choose(name: str) -> tuple[Target, str]:
    """The target called ``name`` and, when the choice was ours, one line that says why.

    "auto" is EBPFLAB_TARGET where that is set, else the first of local, vm and replay that can
    do what the chapters need. Raises TargetError.
    """
    if name == "auto":
        wished = os.environ.get("EBPFLAB_TARGET", "")
        if wished and wished != "auto":
            return _named(wished), f"{_doing(wished)} {wished!r}, as EBPFLAB_TARGET says."
        return _automatic()
    return _named(name), ""


def _named(name: str) -> Target:
    if name.startswith("ssh:"):
        return SshTarget(name)
    if name.startswith("replay:"):
        return ReplayTarget(name.partition(":")[2])
    try:
        return TARGETS[name]()
    except KeyError:
        raise TargetError(
            f"There is no target {name!r}. Targets: auto, {', '.join(TARGETS)},"
            " ssh://user@host."
            f"{suggest(name, TARGETS)}"
        ) from None


def _automatic() -> tuple[Target, str]:
    local, vm, replay = LocalTarget(), VmTarget(), ReplayTarget()
    able, why = can_trace_kernel(own_features())
    if able and local.unavailable() is None:
        return local, f"Tracing this machine's own kernel: {why}."
    reason = why if not able else local.unavailable()
    if vm.unavailable() is None:
        return vm, f"Tracing a VM, because this machine cannot be traced: {reason}."
    if replay.unavailable() is None:
        return replay, (
            "Playing a recording, because there is no machine to trace here: not this one"
            f" ({reason}), and no VM ({vm.unavailable()})."
        )
    raise TargetError(
        "No machine to trace.\n"
        f"  local: {reason}\n"
        f"  vm: {vm.unavailable()}\n"
        f"  replay: {replay.unavailable()}\n"
        "`ebpflab doctor` shows every condition and its fix."
    )


def _doing(name: str) -> str:
    return "Playing" if name.startswith("replay") else "Tracing"


def own_features() -> list[Feature]:
    """The rows of this machine, as an ordinary user can tell."""
    return cast(list[Feature], checks.probe())  # its file runs alone, and knows no type of ours
