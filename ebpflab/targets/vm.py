"""The `vm` target: the agent in a guest that ebpflab builds, saves and resumes itself.

The wire is a socket pair, one end of which QEMU inherits as the guest's virtio-serial port. The
agent is not part of the image: it is sent over that port to the bootstrap that waits there.
"""

from __future__ import annotations

from ebpflab import vm
from ebpflab.transport import archive
from ebpflab.transport.base import OnStep, Target, Transport
from ebpflab.vm.guest import Guest


class VmTransport(Transport):
    """An agent in a guest; it and the guest end together."""

    set_clock = True  # the guest's clock stands where it was when the guest was saved

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.reader = self.writer = guest.wire.fileno()

    def close(self) -> None:
        self._guest.close()

    def post_mortem(self) -> str:
        return self._guest.post_mortem()


class VmTarget(Target):
    """A new guest for each connection; the first one ever has to be built (minutes)."""

    name = "vm"

    def unavailable(self) -> str | None:
        return vm.unavailable()

    def connect(self, progress: OnStep) -> Transport:
        return VmTransport(vm.start(progress, archive.agent_parcel()))
