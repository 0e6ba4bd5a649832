"""Run a build's command: its output into a log, its phases as progress, its failure in words."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ebpflab.errors import VMError
from ebpflab.vm import cache, process
from ebpflab.vm.steps import Steps

PhaseOf = Callable[[str], str | None]

# Causes that deserve better than a line of a log, by what apt, dpkg or the kernel say of them.
_CAUSES = {
    "No space left on device": "The disk is full: free some space under the cache directory and "
    "under /var/tmp (or $TMPDIR), and try again.",
    "Temporary failure resolving": "No package server could be reached: is there a network?",
    "Could not connect to": "No package server could be reached: is there a network, or a proxy?",
    "NO_PUBKEY": "The host's archive keyring is older than the suite: "
    "sudo apt install --only-upgrade debian-archive-keyring",
    "does not have a Release file": "The package server has no such suite.",
    "newuidmap failed": "The kernel or the system's policy forbids user namespaces to ordinary "
    "users: build as root, or see user_namespaces(7).",
}
_DECISIVE = ("error:", "E:", "Err:", "fatal:", "*** ")
_SHOWN_LINES = 4


@dataclass(frozen=True)
class Runner:
    """What the commands of one build share."""

    steps: Steps
    log: Path

    def run(
        self,
        step: str,
        command: Sequence[str],
        phase_of: PhaseOf = lambda line: None,
        output: int | None = None,
    ) -> None:
        """Run ``command`` to its end. ``phase_of`` names the step that a line of it begins;
        standard output goes to ``output`` if given, and the rest to the log."""
        self.steps.begin(step)
        read_end, write_end = os.pipe()
        try:
            try:
                keeper = process.start(
                    command, output=write_end if output is None else output, error=write_end
                )
            finally:
                os.close(write_end)
            try:
                self._follow(read_end, phase_of)
                status = keeper.wait()
            finally:
                process.kill(keeper)
        finally:
            os.close(read_end)
        if status:
            raise self._failure(step, command, status)

    def _follow(self, source: int, phase_of: PhaseOf) -> None:
        """Copy ``source`` to the log until it ends."""
        rest = ""
        with self.log.open("ab", buffering=0) as log:
            while True:
                if not select.select([source], [], [], 1.0)[0]:
                    self.steps.tick()
                    continue
                data = os.read(source, 1 << 16)
                if not data:
                    return
                log.write(data)
                *lines, rest = (rest + data.decode(errors="replace")).split("\n")
                for line in lines:
                    if step := phase_of(line):
                        self.steps.begin(step)
                self.steps.tick()

    def _failure(self, step: str, command: Sequence[str], status: int) -> VMError:
        text = self.log.read_text(errors="replace")
        kept = cache.root() / "failed-build.log"
        shutil.copyfile(self.log, kept)
        cause = next((advice for sign, advice in _CAUSES.items() if sign in text), "")
        return VMError(
            f"Building the guest failed while {step}: {Path(command[0]).name} ended with status "
            f"{status}.\n{_decisive_lines(text)}\n{cause}\nThe whole log: {kept}".replace(
                "\n\n", "\n"
            ),
            status=status,
            log=str(kept),
        )


def _decisive_lines(log: str) -> str:
    """The last lines that say what went wrong; the very last if none looks like it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    decisive = [line for line in lines if any(sign in line for sign in _DECISIVE)]
    return "\n".join(f"    {line}" for line in (decisive or lines)[-_SHOWN_LINES:])


def check_output(command: Sequence[str], purpose: str) -> str:
    """The output of a short command, or VMError with what it complained about."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise VMError(f"{purpose} failed: {Path(command[0]).name}: {done.stderr.strip()}")
    return done.stdout
