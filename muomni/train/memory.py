"""Memory of a training: how much it takes, and what to do first when there is none left."""

import contextlib
import gc
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from muomni.errors import UserError
from muomni.layers import MoE

# What errors say that have no type of their own: of PyTorch on a CPU, of C++, of the libraries on a GPU.
PHRASES = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)


@contextlib.contextmanager
def no_memory_is_an_error(name: str) -> Iterator[None]:
    """One line instead of a traceback where nothing can be cut in parts: an evaluation, the optimisers, new batches.

    Raises:
        UserError: instead of the error for want of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200] or "MemoryError"
        raise UserError(
            f"{name}: out of memory outside of the micro-batches ({said}); set a smaller model, or give it more memory "
            "(device.memory_gb is a cap, if set)"
        ) from None


def free(modules: Mapping[str, nn.Module], device: torch.device) -> None:
    """Give back what a failed attempt left. Call it outside of the ``except`` block, which keeps its tensors alive."""
    for module in modules.values():
        for part in module.modules():
            if isinstance(part, MoE):
                part.balance = None  # the graph of the whole forward pass hangs on it
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_mb(device: torch.device) -> tuple[float, float]:
    """Memory that a training holds, and the most that it held, in MiB.

    On a GPU both are the most that PyTorch reserved so far. On a CPU they are this process's resident memory.
    """
    if device.type == "cuda":
        most = torch.cuda.max_memory_reserved(device) / 2**20
        return most, most
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        found = dict(line.split(":", 1) for line in text.splitlines() if line.startswith(("VmRSS:", "VmHWM:")))
        now, most = (int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    except (OSError, KeyError):  # no such file: the next best, which counts what the process was started by too
        now = most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return now, max(now, most)
