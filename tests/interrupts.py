"""Ctrl-C at a known moment: when a request has been sent, and its answer is waited for."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any


class Wait(Future[Any]):
    """For an answer; the first who waits is interrupted. For `ebpflab.transport.connection`."""

    waited = False

    def result(self, timeout: float | None = None) -> Any:
        if not self.waited:
            self.waited = True
            raise KeyboardInterrupt
        return super().result(timeout)
