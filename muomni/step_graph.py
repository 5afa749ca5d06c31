"""A step of writing as one CUDA graph: its kernels are recorded once, and a replay starts all of them together.

On a small model a GPU is done with a kernel before Python has started the next. A graph takes Python out of it.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TOGETHER = 4  # tokens that are started one after the other without looking at them


def record(step: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """A graph of what a function starts on the GPU.

    Raises:
        RuntimeError: if it cannot be recorded.
    """
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # libraries set themselves up in the first calls, which cannot be recorded
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


class StepGraph:
    """`muomni.decoder.Decoder.step_at` over one cache, recorded.

    Args:
        step: takes ids ``[B]``, positions ``[B]`` and the cache's tensor, and returns states ``[B, D]``.
        kv: of the cache, ``[L, B, P, 2, K, h]``, with room for a token at least.

    Raises:
        RuntimeError: if it cannot be recorded.
    """

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor], kv: Tensor) -> None:
        self.ids = torch.zeros(kv.shape[1], dtype=torch.int64, device=kv.device)
        # The rehearsal writes to the last position, which is written again before it is ever seen.
        self.at = torch.full_like(self.ids, kv.shape[2] - 1)
        self.step, self.kv = step, kv
        self.graph = record(self.once, kv.device)

    def once(self) -> None:
        """What is recorded."""
        self.states = self.step(self.ids, self.at, self.kv)

    @torch.inference_mode()
    def __call__(self, ids: Tensor, at: Tensor) -> Tensor:
        """States ``[B, D]`` of ids ``[B]`` at positions ``[B]``, both int64 on the CPU."""
        self.ids.copy_(ids)
        self.at.copy_(at)
        self.graph.replay()
        return self.states.clone()


class GreedyGraph:
    """`muomni.decoder.Decoder.greedy_at` over the cache of one row, recorded. Its token is the next step's input.

    So the GPU goes on by itself: while some tokens are looked at, the next are being made.

    Args:
        step: takes ids ``[1]``, positions ``[1]``, the cache's tensor, a place for states ``[P, D]`` and banned ids,
            and returns the next ids ``[1]``.
        kv: of the cache, ``[L, 1, P, 2, K, h]``, with room for a token at least.
        width: D.
        banned: ids that are never chosen.

    Raises:
        RuntimeError: if it cannot be recorded.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor],
        kv: Tensor,
        width: int,
        banned: tuple[int, ...],
    ) -> None:
        self.step, self.kv, self.banned = step, kv, banned
        self.forbidden = torch.tensor(banned, dtype=torch.int64, device=kv.device)
        self.ids = torch.zeros(1, dtype=torch.int64, device=kv.device)
        self.last = kv.shape[2] - 1
        # The rehearsal writes to the last position, which is written again before it is ever seen.
        self.at = torch.full_like(self.ids, self.last)
        self.states = torch.zeros(kv.shape[2], width, device=kv.device)
        self.graph = record(self.once, kv.device)

    def once(self) -> None:
        """What is recorded: the token at its position is read, and gives way to the next."""
        self.ids.copy_(self.step(self.ids, self.at, self.kv, self.states, self.forbidden))
        self.at.add_(1).clamp_(max=self.last)

    def __call__(self, first: Tensor, start: int, limit: int) -> Iterator[tuple[int, Tensor]]:
        """Read tokens from `first` ``[1]`` on, which stands at position `start`, as many as `limit`.

        Yields:
            Each token's id and the state ``[D]`` after reading it.
        """
        said = torch.zeros(limit, dtype=torch.int64, pin_memory=True)
        ready: list[torch.cuda.Event] = []

        @torch.inference_mode()
        def begin(begun: int, end: int) -> None:
            if not begun:
                self.ids.copy_(first)
                self.at.fill_(start)
            for number in range(begun, end):
                said[number : number + 1].copy_(self.ids, non_blocking=True)
                self.graph.replay()
            ready.append(torch.cuda.Event())
            ready[-1].record()

        parts = [(at, min(at + TOGETHER, limit)) for at in range(0, limit, TOGETHER)]
        begin(*parts[0])
        for number, (begun, end) in enumerate(parts):
            if number + 1 < len(parts):
                begin(*parts[number + 1])
            ready[number].synchronize()
            yield from zip(said[begun:end].tolist(), self.states[start + begun : start + end].clone(), strict=True)
