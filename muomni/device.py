"""Where the model computes and in what precision: section ``device`` of params.yaml."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch
from pydantic import Field

from muomni.config import Section
from muomni.errors import UserError


class DeviceConfig(Section):
    """Device, precision and limits."""

    name: Literal["auto", "cpu", "cuda"] = Field(description="auto takes a CUDA GPU if there is one")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="auto is bf16 autocast on devices with fast bf16 products, else fp32"
    )
    threads: int = Field(ge=0, le=1024, description="CPU threads; 0 leaves PyTorch's choice, all cores")
    memory_gb: float | None = Field(gt=0, description="cap on GPU memory in GiB; null for none")


class Device(NamedTuple):
    """A chosen device.

    Attributes:
        device: where tensors live.
        autocast: makes the context in which losses are computed.
        description: one line for the log.
        bf16: whether products run in bfloat16.
    """

    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    description: str
    bf16: bool


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

    Without it PyTorch emulates the products, at about a hundredth of the speed of float32.
    """
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


def gpu_has_fast_bf16() -> bool:
    """Whether the current CUDA device multiplies bfloat16 in hardware (Ampere or later)."""
    return torch.cuda.get_device_capability() >= (8, 0)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread for many small operations, where handing out the work takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(cfg: DeviceConfig) -> Device:
    """Choose device and precision, and apply the limits on threads and GPU memory to this process.

    Under ``torchrun`` each process takes the GPU of its ``LOCAL_RANK``.

    Raises:
        UserError: if a CUDA device is asked for and there is none.
    """
    # Also where PyTorch's own choice is kept: once it is told a number, MKL no longer takes fewer threads when it
    # likes, and so every process adds up in the same order, whatever ran in it before.
    torch.set_num_threads(cfg.threads or torch.get_num_threads())
    if cfg.name == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: device.name: no CUDA GPU on this machine; use cpu or auto")
    if cfg.name == "cpu" or not torch.cuda.is_available():
        device = torch.device("cpu")
        fast = cpu_has_fast_bf16()
        what = f"CPU, {torch.get_num_threads()} threads"
    else:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        # cuDNN's attention builds a plan for every new shape, which takes longer than a step where lengths vary.
        torch.backends.cuda.enable_cudnn_sdp(False)
        fast = gpu_has_fast_bf16()
        total = torch.cuda.get_device_properties(device).total_memory
        what = f"{torch.cuda.get_device_name(device)}, {total / 2**30:.0f} GiB"
        if cfg.memory_gb is not None:
            torch.cuda.set_per_process_memory_fraction(min(1.0, cfg.memory_gb * 2**30 / total), device)
            what += f" (at most {cfg.memory_gb:g})"
    bf16 = cfg.precision == "bf16" or (cfg.precision == "auto" and fast)
    if bf16 and not fast:
        what += ", no bf16 hardware (very slow)"

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()

    return Device(device, autocast, f"{what}, {'bf16 autocast' if bf16 else 'fp32'}", bf16)
