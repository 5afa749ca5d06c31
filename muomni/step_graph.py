"""A step of writing as one CUDA graph: its kernels are recorded once, and a replay starts all of them together.

On a small model a GPU is done with a kernel before Python has started the next. A graph takes Python out of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor


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
        side = torch.cuda.Stream(kv.device)
        side.wait_stream(torch.cuda.current_stream(kv.device))
        with torch.cuda.stream(side):  # libraries set themselves up in the first calls, which cannot be recorded
            for _ in range(3):
                step(self.ids, self.at, kv)
        torch.cuda.current_stream(kv.device).wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.states = step(self.ids, self.at, kv)

    def __call__(self, ids: Tensor, at: Tensor) -> Tensor:
        """States ``[B, D]`` of ids ``[B]`` at positions ``[B]``, both int64 on the CPU."""
        self.ids.copy_(ids)
        self.at.copy_(at)
        self.graph.replay()
        return self.states.clone()
