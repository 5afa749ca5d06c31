"""A causal stack of layers laid out for making one position after the other, in one row or many.

`muomni.layers` is the reference: it trains, and it says what is computed. To write a token, one position goes through
all layers. That takes as long as reading the weights once and starting many small operations. So the same arithmetic
is done here in fewer of them:

- query, key and value are one matrix, gate and up another;
- the two channels of a rotary pair lie side by side, so that they are a complex number and the rotation is a product;
- heads that share a key stand where positions would, so that no key is repeated;
- keys and values lie in one cache, which is allocated once.

The weights may also be kept in fewer bits (`muomni.matrix`), so that there is less to read.

Shapes: as in `muomni.layers`, with P positions of a cache and G = H / K heads to a key.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from muomni.layers import Block, Stack, SwiGLU
from muomni.matrix import Matrix, Weights, check_weights
from muomni.step_graph import GreedyGraph, StepGraph

try:
    from muomni.attention_kernel import attend_and_store
except ImportError:  # there is no Triton: PyTorch's attention does the same, slower
    attend_and_store = None  # type: ignore[assignment]

FeedForward = Callable[[Tensor], Tensor]
Mix = Callable[[int, Tensor], Tensor]
Store = Callable[[int, Tensor], tuple[Tensor, Tensor]]


class Layer(NamedTuple):
    """What is read of a `Block`."""

    norm1: Tensor  # [D], as norm2 with the factor of `StackDecoder.normalise`
    qkv: Matrix  # [(H + 2 K) h, D]
    out: Matrix
    norm2: Tensor
    feed_forward: FeedForward


def side_by_side(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix ``[heads h, D]`` with the two channels of each rotary pair next to each other.

    Queries and keys are reordered alike, so that their products stay what they were.
    """
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def lay_out_block(block: Block, weights: Weights, gain: float) -> Layer:
    """A block's matrices, joined where they read the same input."""
    attention = block.attention
    query = side_by_side(attention.query.weight, attention.heads)
    key = side_by_side(attention.key.weight, attention.kv_heads)
    return Layer(
        block.norm1.weight.detach() * gain,
        Matrix(torch.cat((query, key, attention.value.weight)), weights),
        Matrix(attention.out.weight, weights),
        block.norm2.weight.detach() * gain,
        lay_out_feed_forward(block.feed_forward, weights),
    )


def lay_out_feed_forward(module: torch.nn.Module, weights: Weights) -> FeedForward:
    """A SwiGLU with gate and up in one; a mixture of experts stays as it is."""
    if not isinstance(module, SwiGLU):
        return module
    gate_up = Matrix(torch.cat((module.gate.weight, module.up.weight)), weights)
    down = Matrix(module.down.weight, weights)

    def feed_forward(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2, dim=-1)
        return down(F.silu(gate).mul_(up))

    return feed_forward


class Cache:
    """Keys and values of all layers, for one row or several.

    Attributes:
        kv: ``[L, B, P, 2, K, h]``, of each position the keys and the values.
        lengths: positions that are filled, of each row. What is behind is forgotten, so that a row can be set back.
        graph, greedy: on a GPU the recorded steps, with the next token chosen elsewhere or by the graph itself.
    """

    def __init__(self, kv: Tensor) -> None:
        self.kv, self.lengths = kv, [0] * kv.shape[1]
        self.graph: StepGraph | None = None
        self.greedy: GreedyGraph | None = None

    @property
    def positions(self) -> int:
        """How many a row has room for."""
        return self.kv.shape[2]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        self.kv, self.graph, self.greedy = self.kv[:, list(rows)], None, None
        self.lengths = [self.lengths[row] for row in rows]


def plain(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run a method of `StackDecoder` without gradients and in the precision of its weights, whatever autocast is on."""

    @wraps(method)
    def run(self: "StackDecoder", *args: Any) -> Tensor:
        with torch.inference_mode():
            if not torch.is_autocast_enabled(self.device.type):
                return method(self, *args)
            with torch.autocast(self.device.type, enabled=False):
                return method(self, *args)

    return run


class StackDecoder:
    """A causal stack's weights laid out. They do not follow when the stack learns on: make a new one then.

    Args:
        stack: where the weights come from. What needs no other layout is shared with it.
        weights: how the matrices are kept. Norms, experts, keys and values are in fp32.

    Raises:
        UserError: for weights that the device is very slow with.
    """

    def __init__(self, stack: Stack, weights: Weights = "fp32") -> None:
        self.weights, self.device, self.context = weights, stack.norm.weight.device, stack.positions
        check_weights(weights, self.device)
        self.on_gpu = self.device.type == "cuda"
        blocks = [block for block in stack.blocks if isinstance(block, Block)]
        attention = blocks[0].attention
        self.heads, self.kv_heads, self.head_width = attention.heads, attention.kv_heads, attention.head_width
        width = len(stack.norm.weight)
        gain = 1.0 if self.on_gpu else width**0.5
        self.eps = stack.norm.eps
        with torch.no_grad():
            self.layers = [lay_out_block(block, weights, gain) for block in blocks]
            self.norm = stack.norm.weight * gain
            self.floor = torch.tensor((width * stack.norm.eps) ** 0.5, device=self.device)
            # The rotation turns the heads of queries and keys, and not those of values.
        heads = torch.arange(self.heads + 2 * self.kv_heads, device=self.device)[:, None]
        turned = heads < self.heads + self.kv_heads  # [H + 2 K, 1]
        rope = torch.complex(stack.cos, stack.sin)[:, None]  # [context, 1, h / 2]
        self.turns = torch.where(turned, rope, 1).flatten(1)  # [context, (H + 2 K) h / 2]
        self.fused = self.on_gpu and attend_and_store is not None

    def new_cache(self, batch: int, positions: int) -> Cache:
        """An empty cache; zeros, since what is masked is multiplied by 0 and must be finite."""
        shape = (len(self.layers), batch, positions, 2, self.kv_heads, self.head_width)
        return Cache(torch.zeros(shape, device=self.device))

    @plain
    def read(self, x: Tensor, cache: Cache) -> Tensor:
        """Read embeddings ``[B, T, D]`` behind what is in the cache; returns states ``[B, T, D]``.

        Rows of different lengths are padded on the right, where nothing real sees the padding. Set `Cache.lengths` to
        their own lengths afterwards.

        Raises:
            ValueError: if the rows do not begin at the same position, or the cache or the context is full.
        """
        start, t = cache.lengths[0], x.shape[1]
        end = start + t
        if any(length != start for length in cache.lengths):
            raise ValueError(f"rows of {cache.lengths} positions go on one token at a time")
        self.check(end, cache)
        places = cache.kv[:, :, start:end].unbind()  # L times [B, T, 2, K, h]
        keys, values = (cache.kv[:, :, :end, i].transpose(2, 3).unbind() for i in (0, 1))  # L times [B, K, end, h]

        def store(layer: int, kv: Tensor) -> tuple[Tensor, Tensor]:
            places[layer].copy_(kv)
            return keys[layer], values[layer]

        mask = None
        if start and t > 1:  # PyTorch's own causal mask has the first query see the first key only
            mask = torch.ones(t, end, dtype=torch.bool, device=x.device).tril(start)
        states = self.run(x, self.turns[start:end], self.mixing(store, mask))
        cache.lengths = [end] * len(cache.lengths)
        return states

    def check(self, end: int, cache: Cache) -> None:
        """Refuse more positions than there are.

        Raises:
            ValueError: if there are fewer positions.
        """
        if end > min(cache.positions, self.context):
            raise ValueError(f"{end} positions; the cache holds {cache.positions}, the context {self.context}")

    @plain
    def step_rows(self, x: Tensor, at: Tensor, kv: Tensor) -> Tensor:
        """Make a position of its own in each row. All that varies is in tensors, as a CUDA graph needs it.

        Args:
            x: embeddings ``[B, D]``.
            at: the position of each, ``[B]`` int64.
            kv: of a cache, ``[L, B, P, 2, K, h]``; takes the new keys and values.

        Returns:
            States ``[B, D]``.
        """
        turn = self.turns[at][:, None]
        if self.fused:

            def mix(layer: int, qkv: Tensor) -> Tensor:
                return attend_and_store(qkv[:, 0], kv[layer], at, self.heads)[:, None]

            return self.run(x[:, None], turn, mix)[:, 0]
        rows = torch.arange(len(x), device=x.device)
        mask = torch.arange(kv.shape[2], device=x.device) <= at[:, None]  # [B, P]

        def store(layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
            kv[layer][rows, at] = new[:, 0]
            return kv[layer, :, :, 0].transpose(1, 2), kv[layer, :, :, 1].transpose(1, 2)

        return self.run(x[:, None], turn, self.mixing(store, mask[:, None, None]))[:, 0]

    def run(self, x: Tensor, turn: Tensor, mix: Mix) -> Tensor:
        """All layers.

        Args:
            x: ``[B, T, D]``.
            turn: rotations ``[(B,) T, (H + 2 K) h / 2]``, complex, of some rows of `turns`.
            mix: attention of a layer: takes its number, and queries, keys and values ``[B, T, (H + 2 K) h]``, and gives
                ``[B, T, D]``.
        """
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(self.normalise(x, layer.norm1))
            qkv.view(torch.complex64).mul_(turn)
            x = x + layer.out(mix(number, qkv))
            x = x + layer.feed_forward(self.normalise(x, layer.norm2))
        return self.normalise(x, self.norm)

    def mixing(self, store: Store, mask: Tensor | None) -> Mix:
        """Attention by PyTorch.

        Args:
            store: puts a layer's new keys and values ``[B, T, 2, K, h]`` away, and gives all of them, each
                ``[B, K, S, h]``.
            mask: ``[.., T, S]``, True where a key is seen, or None: a position sees itself and all before it.
        """

        def mix(layer: int, qkv: Tensor) -> Tensor:
            b, t, _ = qkv.shape
            q, kv = qkv.view(b, t, -1, self.head_width).split((self.heads, 2 * self.kv_heads), dim=2)
            keys, values = store(layer, kv.view(b, t, 2, self.kv_heads, self.head_width))
            return self.attend(q, keys, values, mask)

        return mix

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Queries ``[B, T, H, h]`` over keys and values ``[B, K, S, h]``; returns ``[B, T, D]``."""
        b, t, _, _ = q.shape
        if t == 1:
            q = q.view(b, self.kv_heads, -1, self.head_width)  # [B, K, G, h]
            return F.scaled_dot_product_attention(q, keys, values, mask).reshape(b, 1, -1)
        keys, values = (x.repeat_interleave(self.heads // self.kv_heads, dim=1) for x in (keys, values))
        y = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, mask, is_causal=mask is None)
        return y.transpose(1, 2).flatten(2)

    def normalise(self, x: Tensor, gain: Tensor) -> Tensor:
        """RMSNorm: x over the root of mean square and epsilon, which is the hypotenuse of |x| and the epsilon's root.

        The root of D that is missing then is in the gain. That is quicker on a CPU than PyTorch's own.
        """
        if self.on_gpu:
            return F.rms_norm(x, (x.shape[-1],), gain, self.eps)
        return (x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.floor)).mul_(gain)
