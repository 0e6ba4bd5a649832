"""Students on one machine: each an ordinary user, without an account being made for any.

The hub's own number of a student gives the user id, so it stays the same as long as the hub's
database does. Where the hub is not run by root it cannot change users: all students are then the
one who runs it, which does to try it out, and no more.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE = REPOSITORY / "course" / "release"
FIRST_USER_ID = 30000
ADDRESS_SPACE_BYTES = 4 << 30
"""Of each process; QEMU with its guest of 1 GiB takes 3."""
PROCESSES = 300
NICENESS = 5
"""Behind the hub and its proxy, so that pages still come when every student computes."""


class StudentSpawner(SimpleLocalProcessSpawner):
    """A student's JupyterLab as a child of the hub, with limits; the VM is its child in turn."""

    @property
    def student_id(self) -> int | None:
        """The user id, or None where the hub may not change users."""
        return FIRST_USER_ID + self.user.orm_user.id if os.geteuid() == 0 else None

    def make_home(self) -> None:
        """The home, with chapters and assignments; what the student has changed stays.

        The student copies them, not root: a link that a student has put where a copy belongs
        would otherwise let root write anywhere.
        """
        home, own = Path(self.home_dir), self.student_id
        home.mkdir(parents=True, exist_ok=True)
        if own is not None:
            home.chmod(0o700)
            os.chown(home, own, own)
        copies = ["notebooks", *(["course/release"] if RELEASE.exists() else [])]
        subprocess.run(
            ["cp", "--recursive", "--no-clobber", *copies, str(home)],
            cwd=REPOSITORY,
            user=own,
            group=own,
            extra_groups=None if own is None else [],
            check=False,  # what it could not copy stands in the hub's log; the server starts anyway
        )

    def make_preexec_fn(self, name: str) -> Callable[[], None]:
        """What the child does before it becomes JupyterLab."""
        self.make_home()
        home, own = self.home_dir, self.student_id

        def become_student() -> None:
            if own is not None:
                os.setgroups(_groups_of_kvm())
                os.setgid(own)
                os.setuid(own)
            os.chdir(home)
            os.nice(NICENESS)
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES,) * 2)
            resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES,) * 2)

        return become_student


def _groups_of_kvm() -> list[int]:
    device = Path("/dev/kvm")
    return [device.stat().st_gid] if device.exists() else []
