"""A Thinker laid out for writing: `muomni.stack_decoder` between its embedding and its head.

On a GPU a step is one recorded graph (`muomni.step_graph`).
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from muomni.matrix import Matrix, Weights
from muomni.stack_decoder import Cache, StackDecoder, plain
from muomni.step_graph import GreedyGraph, StepGraph
from muomni.thinker import Thinker

__all__ = ["Cache", "Decoder"]

ROOM = 128  # positions by which caches that are kept differ
Graph = TypeVar("Graph", StepGraph, GreedyGraph)


class Decoder(StackDecoder):
    """A Thinker's weights laid out for writing. They do not follow when the Thinker learns on: make a new one then.

    Args:
        thinker: where the weights come from. What needs no other layout is shared with it.
        weights: how the matrices are kept. Embeddings, norms, experts, keys and values are in fp32.

    Raises:
        UserError: for weights that the device is very slow with.
    """

    def __init__(self, thinker: Thinker, weights: Weights = "fp32") -> None:
        super().__init__(thinker.stack, weights)
        self.cfg = thinker.cfg
        self.embedding = thinker.embedding.weight.detach()  # [V, D]
        self.head = Matrix(thinker.head.weight, weights)  # [V, D]
        self.graphs = self.on_gpu and not self.cfg.n_experts  # how many tokens an expert gets is not known beforehand
        self.spare: dict[int, Cache] = {}  # by positions; on a GPU what is recorded for a cache is worth keeping

    @contextmanager
    def lend(self, positions: int) -> Iterator[Cache]:
        """An empty cache for one row; on a GPU one that was used before, if there is one, with its recorded step."""
        if not self.graphs:
            yield self.new_cache(1, positions)
            return
        room = min(self.cfg.context, ROOM * -(-positions // ROOM))
        cache = self.spare.pop(room, None) or self.new_cache(1, room)
        cache.lengths = [0]
        try:
            yield cache
        finally:
            self.spare[room] = cache

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids ``[B, T]`` int64 to embeddings ``[B, T, D]``."""
        return F.embedding(ids, self.embedding)

    @plain
    def logits(self, states: Tensor) -> Tensor:
        """States ``[..., D]`` to logits ``[..., V]``."""
        return self.head(states)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings ``[B, T, D]`` to states ``[B, T, D]``, with nothing before them."""
        return self.read(x, self.new_cache(x.shape[0], x.shape[1]))

    def step(self, tokens: Sequence[int], cache: Cache) -> Tensor:
        """Read one more token in each row of the cache; returns states ``[B, D]``.

        Raises:
            ValueError: if the cache or the context is full.
        """
        end = max(cache.lengths) + 1
        self.check(end, cache)
        ids, at = torch.tensor(tokens), torch.tensor(cache.lengths)
        if self.graphs and cache.graph is None:
            cache.graph = self.recorded(lambda: StepGraph(self.step_at, cache.kv))
        if cache.graph is not None:
            states = cache.graph(ids, at)
        elif len(tokens) > 1:
            states = self.step_at(ids.to(self.device), at.to(self.device), cache.kv[:, :, :end])
        else:
            return self.read(self.embed(ids[None].to(self.device)), cache)[:, 0]
        cache.lengths = [length + 1 for length in cache.lengths]
        return states

    def recorded(self, record: Callable[[], Graph]) -> Graph | None:
        """A graph, or None if it cannot be recorded; then none is tried again."""
        if self.fused:
            try:
                return record()
            except Exception as error:  # Triton's own kinds, such as a missing C compiler
                warnings.warn(f"attention without a kernel of its own, which is slower: {error}", stacklevel=2)
                self.fused = False
        try:
            return record()
        except RuntimeError as error:
            warnings.warn(f"writing without a CUDA graph, which is slower: {error}", stacklevel=2)
            self.graphs = False
            return None

    def greedy_graph(self, cache: Cache, banned: Collection[int]) -> GreedyGraph | None:
        """On a GPU, a recorded step over a cache of one row that chooses the likeliest next token itself."""
        if not self.graphs:
            return None
        ids = tuple(sorted(banned))
        if cache.greedy is None or cache.greedy.banned != ids:
            cache.greedy = self.recorded(lambda: GreedyGraph(self.greedy_at, cache.kv, self.cfg.d_model, ids))
        return cache.greedy

    @plain
    def step_at(self, ids: Tensor, at: Tensor, kv: Tensor) -> Tensor:
        """Read a token at a position of its own in each row, as `step_rows` reads embeddings.

        Args:
            ids: ``[B]`` int64.
            at: the position of each, ``[B]`` int64.
            kv: of a cache, ``[L, B, P, 2, K, h]``; takes the new keys and values.

        Returns:
            States ``[B, D]``.
        """
        return self.step_rows(self.embed(ids), at, kv)

    @plain
    def greedy_at(self, ids: Tensor, at: Tensor, kv: Tensor, states: Tensor, banned: Tensor) -> Tensor:
        """`step_at`, and the likeliest next tokens ``[B]``; the states go to ``states[at]`` of ``[P, D]`` for one row.

        Args:
            ids: as for `step_at`.
            at: as for `step_at`.
            kv: as for `step_at`.
            states: takes the states.
            banned: ids that are never the likeliest.
        """
        state = self.step_at(ids, at, kv)
        states.index_copy_(0, at, state)
        return self.likeliest(state, banned)

    @plain
    def likeliest(self, state: Tensor, banned: Tensor) -> Tensor:
        """The likeliest next tokens ``[B]`` after states ``[B, D]``, but for those that are banned."""
        return self.head(state).index_fill_(1, banned, -torch.inf).argmax(-1)
