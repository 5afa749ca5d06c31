"""Several processes under ``torchrun``: each takes other micro-batches, gradients are averaged.

Process r of n takes the micro-steps r, r + n, r + 2n, ..., so two processes with one micro-batch each see
just what one process with two sees. The first process, rank 0, evaluates and writes; the others wait for it at the next
step. When a process ends, ``torchrun`` ends the others, and starts all again if it was told to: they go on from the
saved state, which all nodes must see.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from muomni.errors import UserError

LONGEST = timedelta(hours=2)  # that the others wait for an evaluation by the first process
PATIENCE = 10.0  # seconds in which torchrun ends a process because another one has ended


def world() -> tuple[int, int]:
    """(this process's rank, number of processes); (0, 1) outside ``torchrun``."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Connect to the other processes, if there are any."""
    if world()[1] > 1 and not dist.is_initialized():
        with together():
            kind = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(kind, timeout=LONGEST)


@contextmanager
def together() -> Iterator[None]:
    """What several processes do together.

    Raises:
        UserError: if another process has ended, but only after a time in which ``torchrun`` ends this one: what is
            wrong is for the other one to tell.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # gloo raises RuntimeError, the rendezvous kinds of both
        time.sleep(PATIENCE)
        said = " ".join(str(error).split())[:160]
        rank, processes = world()
        raise UserError(f"process {rank} of {processes} lost the others ({said}); see what ended them") from None


def check_same(number: int, what: str, todo: str) -> None:
    """Compare a number with the first process's.

    Raises:
        UserError: at every process, if it differs at any.
    """
    if world()[1] == 1:
        return
    with together():
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(world()[1])]
        dist.all_gather(found, torch.tensor([number]))
    numbers = [int(one) for one in found]
    odd = next((rank for rank, one in enumerate(numbers) if one != numbers[0]), None)
    if odd is not None:
        raise UserError(f"{what} is {numbers[0]} at process 0 and {numbers[odd]} at process {odd}; {todo}")


def check_start(folder: Path, facts: dict[str, Any]) -> None:
    """Compare a state that is gone on from with the processes that go on, and note their number in it.

    Raises:
        UserError: if a node does not see the state, or another number of processes made it.
    """
    todo = "have MUOMNI_STATE name a folder that all nodes share"
    check_same(int(facts["step"]), f"{folder}: the saved step", todo)
    before, now = facts.get("processes", 1), world()[1]
    if facts["step"] and before != now:
        raise UserError(
            f"{folder}: {before} process(es) trained up to step {facts['step']}, and now there are {now}; "
            "start as many, or remove the folder to begin again"
        )
    facts["processes"] = now


def wait() -> None:
    """Let every process get here before any goes on."""
    if world()[1] > 1:
        with together():
            dist.barrier()


def average_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
    """Replace gradients and a loss by their means over all processes, in place, in one message."""
    if world()[1] == 1:
        return
    for p in parameters:  # a part that this process's batch did not touch still takes part in the mean
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    tensors = [loss, *(p.grad for p in parameters if p.grad is not None)]
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    with together():
        dist.all_reduce(flat)
    flat /= world()[1]
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def share_buffers(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's values of what learns by moving averages and not by gradients."""
    for module in modules if world()[1] > 1 else ():
        still = (p for p in module.parameters() if not p.requires_grad)
        _share([*still, *module.buffers()])


def share_weights(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's weights: machines of other kinds may have drawn others at the start."""
    for module in modules if world()[1] > 1 else ():
        _share([*module.parameters(), *module.buffers()])


def _share(tensors: Iterable[Tensor]) -> None:
    with together():
        for tensor in tensors:
            sent = tensor.detach().contiguous()  # weights of convolutions have their channels last
            dist.broadcast(sent, 0)
            tensor.detach().copy_(sent)


def leave() -> None:
    """Disconnect."""
    if world()[1] > 1 and dist.is_initialized():
        dist.destroy_process_group()
