"""The processors of this machine."""

from typing import List


def online_cpus() -> List[int]:
    """The CPUs that run now (``/sys/devices/system/cpu/online``: ``0-3,6``)."""
    with open("/sys/devices/system/cpu/online") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return [cpu for each in ranges for cpu in range(int(each[0]), int(each[-1]) + 1)]
