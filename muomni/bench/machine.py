"""What the machine is and what it can do at most: the limits beside which `muomni bench` puts its figures."""

import platform
import statistics
import time
from typing import Any

import torch

from muomni.bench.clock import wait
from muomni.device import Device
from muomni.passport.facts import cpu_name

SIZE = 2048  # rows of the square matrices: large enough for the full rate, small enough for a laptop
STREAM_MB = 512  # more than any CPU's cache


def describe(device: Device) -> dict[str, Any]:
    """The machine, in words and numbers."""
    about: dict[str, Any] = {
        "device": device.description,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    about |= {"cpu": cpu_name(), "threads": torch.get_num_threads()}
    if device.device.type == "cuda":
        properties = torch.cuda.get_device_properties(device.device)
        about |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 2**30, 1)}
    return about


def fastest(run: Any, seconds: float = 1.0) -> float:
    """The least time of a call, in seconds: the limit is what the machine can do when nothing else runs."""
    run()
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_rate(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int] = (SIZE, SIZE, SIZE)) -> float:
    """Floating-point operations a second in products of ``[M, K]`` with ``[K, N]`` matrices."""
    rows, inner, columns = shape
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(inner, columns, device=device, dtype=dtype)
    return 2 * rows * inner * columns / fastest(lambda: a @ b)


def bandwidth(device: torch.device) -> float:
    """Bytes a second read from memory that no cache holds."""
    block = torch.ones(STREAM_MB * 2**20 // 4, device=device)
    return STREAM_MB * 2**20 / fastest(lambda: block.sum())


def limits(device: Device) -> dict[str, float]:
    """The rates that figures are compared with.

    Returns:
        ``fp32`` and, where it is fast, ``bf16``: operations a second; ``bandwidth``: bytes a second.
    """
    found = {"fp32": matrix_rate(device.device, torch.float32)}
    if device.bf16:
        found["bf16"] = matrix_rate(device.device, torch.bfloat16)
    found["bandwidth"] = bandwidth(device.device)
    return found


def spread(times: list[float]) -> dict[str, float]:
    """Median, fastest and number of timed runs."""
    return {"seconds": statistics.median(times), "fastest": min(times), "runs": len(times)}
