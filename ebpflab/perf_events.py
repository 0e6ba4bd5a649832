"""Perf events: what can be counted, by the names that BCC gives it.

A perf event runs a function each time a counter has gone up by ``sample_period``, or, with
``sample_freq``, so many times a second. The clocks count nanoseconds, so that a period of 1 means
"as often as the kernel can", and that is too often.
"""

from __future__ import annotations

from enum import IntEnum

from ebpflab.errors import AttachError

MAX_CLOCK_HZ = 10_000
"""Samples a second and CPU that are taken by a clock at most; the kernel would allow 100,000."""


class PerfType(IntEnum):
    """Where an event comes from: ``enum perf_type_id`` of include/uapi/linux/perf_event.h."""

    HARDWARE = 0
    SOFTWARE = 1


class PerfHWConfig(IntEnum):
    """Counters of the processor, which most virtual machines do not have."""

    CPU_CYCLES = 0
    INSTRUCTIONS = 1
    CACHE_REFERENCES = 2
    CACHE_MISSES = 3
    BRANCH_INSTRUCTIONS = 4
    BRANCH_MISSES = 5
    BUS_CYCLES = 6
    STALLED_CYCLES_FRONTEND = 7
    STALLED_CYCLES_BACKEND = 8
    REF_CPU_CYCLES = 9


class PerfSWConfig(IntEnum):
    """Counters of the kernel, which are there on every machine."""

    CPU_CLOCK = 0
    TASK_CLOCK = 1
    PAGE_FAULTS = 2
    CONTEXT_SWITCHES = 3
    CPU_MIGRATIONS = 4
    PAGE_FAULTS_MIN = 5
    PAGE_FAULTS_MAJ = 6
    ALIGNMENT_FAULTS = 7
    EMULATION_FAULTS = 8
    DUMMY = 9
    BPF_OUTPUT = 10


_CLOCKS = (PerfSWConfig.CPU_CLOCK, PerfSWConfig.TASK_CLOCK)


def check_rate(ev_type: int, ev_config: int, sample_period: int, sample_freq: int) -> None:
    """Raise AttachError for a rate that is missing, said twice, or would drown the machine."""
    if (sample_period > 0) == (sample_freq > 0):
        raise AttachError(
            "A perf event needs exactly one of sample_freq (times a second) and sample_period"
            f" (every so many events); given were sample_freq={sample_freq} and"
            f" sample_period={sample_period}. To sample a CPU: sample_freq=99."
        )
    if ev_type != PerfType.SOFTWARE or ev_config not in _CLOCKS:
        return
    asked_hz = sample_freq or 1_000_000_000 // sample_period
    if asked_hz <= MAX_CLOCK_HZ:
        return
    said = f"sample_freq={sample_freq}"
    if sample_period:
        said = f"sample_period={sample_period} is one sample every {sample_period} ns, which"
    raise AttachError(
        f"{said} asks for {asked_hz:,} samples a second on each CPU. The kernel would take up to"
        f" 100,000, and the machine would do little else; ebpflab takes {MAX_CLOCK_HZ:,} at most."
        " sample_freq=99 shows what a program does."
    )


def describe(ev_type: int, ev_config: int, sample_period: int, sample_freq: int) -> str:
    """An event in words.

    >>> describe(PerfType.SOFTWARE, PerfSWConfig.CPU_CLOCK, 0, 99)
    'CPU_CLOCK at 99 Hz'
    """
    configs: dict[int, type[PerfHWConfig] | type[PerfSWConfig]] = {
        PerfType.HARDWARE: PerfHWConfig,
        PerfType.SOFTWARE: PerfSWConfig,
    }
    name = f"type {ev_type}, config {ev_config}"
    if ev_type in configs and ev_config in {each.value for each in configs[ev_type]}:
        name = configs[ev_type](ev_config).name
    return f"{name} at {sample_freq} Hz" if sample_freq else f"{name}, every {sample_period:,}"
