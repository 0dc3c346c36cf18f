"""What processes have used of the machine, read from outside them (Linux)."""

import resource
import time
from collections.abc import Sequence
from pathlib import Path

_OF_PROCESS = 2  # CPUCLOCK_SCHED: user and system time of all threads, in nanoseconds


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far, together.

    From the processes' CPU clocks: the same sum as in /proc/PID/stat, which only has it in hundredths of a second.
    """
    return sum(time.clock_gettime((~pid << 3) | _OF_PROCESS) for pid in pids)


def resident_bytes(pid: int) -> int:
    """Memory that the process has in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")


def raise_open_files(wanted: int) -> None:
    """Let this process and its children open that many files. Raises RuntimeError if the machine forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError(f"this case needs {wanted} open files and `ulimit -Hn` says {hard}: raise that first")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
