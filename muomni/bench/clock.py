"""Times and peak memory, measured so that other work on the machine disturbs a comparison least."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

PAGE = 4096


def wait() -> None:
    """Let a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave(
    cases: Mapping[str, Callable[[], object]], seconds: float = 3.0, least: int = 5, most: int = 200
) -> dict[str, list[float]]:
    """Time several things in turn, A B C A B C ..., so that what slows the machine slows all of them.

    Args:
        cases: what to time; each is run once before, untimed.
        seconds: for each, about.
        least: rounds at least, even if that takes longer.
        most: rounds at most.

    Returns:
        The seconds of each run.
    """
    for run in cases.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in cases}
    began, gone = time.perf_counter(), seconds * len(cases)
    for number in range(most):
        if number >= least and time.perf_counter() - began > gone:
            break
        for name, run in cases.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            found[name].append(time.perf_counter() - start)
    return found


def ratio(one: list[float], other: list[float]) -> float:
    """Median over the rounds of how long one takes in units of the other, both from `interleave`."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def resident_mb() -> float:
    """Memory that this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * PAGE / 2**20


def top_mb(run: Callable[[], object]) -> float:
    """The most memory held during a call, in MiB: of the GPU if there is one, else resident in this process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run()
        wait()
        return torch.cuda.max_memory_reserved() / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    run()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peak_mb(run: Callable[[], object]) -> float:
    """How much more memory than before a call holds at its peak, in MiB.

    On a CPU memory that earlier calls left with the allocator is not seen, so measure in a fresh process.
    """
    gc.collect()
    before = torch.cuda.memory_reserved() / 2**20 if torch.cuda.is_available() else resident_mb()
    return top_mb(run) - before
