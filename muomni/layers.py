"""The parts that every transformer here is made of, smallest first.

Shapes: B batch, T time (positions), D model width, H heads, K key/value heads, h head width, F feed-forward width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class RMSNorm(nn.Module):
    """Root mean square normalisation with a learned gain (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of ``x`` ``[..., D]``."""
        # Of one type with the weight, or a slow fallback computes it.
        return F.rms_norm(x.to(self.weight.dtype), (x.shape[-1],), self.weight, self.eps)


def narrow(x: Tensor) -> Tensor:
    """Cast to autocast's precision once, where several layers read the same input and each would cast it for itself."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class Standardise(nn.Module):
    """Subtract a mean and divide by a deviation per bin, measured once on training data and kept with the weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def measure(self, x: Tensor) -> None:
        """Set the statistics from frames ``x`` ``[N, D]``."""
        self.mean.copy_(x.float().mean(0))
        self.deviation.copy_(x.float().std(0).clamp_min(1e-2))

    def forward(self, x: Tensor) -> Tensor:
        """Raw ``[..., D]`` to standardised ``[..., D]``."""
        return (x - self.mean) / self.deviation

    def inverse(self, x: Tensor) -> Tensor:
        """Standardised ``[..., D]`` to raw ``[..., D]``."""
        return x * self.deviation + self.mean


class Whiten(nn.Module):
    """Subtract the mean and give all directions the same deviation, measured once and kept with the weights (ZCA)."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    def measure(self, x: Tensor, floor: float = 1e-3) -> None:
        """Set the statistics from vectors ``x`` ``[N, D]``.

        Args:
            x: the vectors.
            floor: what is added to each direction's variance, as a share of the average one.
        """
        x = x.double()
        centred = x - x.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(x)))
        values = values.clamp_min(0)
        scale = (values + floor * values.mean().clamp_min(1e-12)).rsqrt()
        self.mean.copy_(x.mean(0))
        self.matrix.copy_(vectors * scale @ vectors.T)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]`` of mean 0 and deviation about 1 in every direction."""
        with torch.autocast(x.device.type, enabled=False):  # half precision would lose the small differences
            return (x.float() - self.mean) @ self.matrix


def rope_table(positions: int, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary position embeddings (Su et al., 2021).

    Returns:
        Two tensors ``[positions, width / 2]``.
    """
    if torch.get_default_device().type == "meta":  # to compute nothing, PyTorch would import its compiler: 2.5 s
        return torch.empty(positions, width // 2), torch.empty(positions, width // 2)
    frequency = theta ** (-torch.arange(0, width, 2).float() / width)
    angle = torch.arange(positions).float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of channels of ``x`` ``[B, H, T, h]`` by the angles of their positions ``[(B, 1,) T, h / 2]``."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


def branch_positions(branches: Tensor) -> Tensor:
    """Positions of sequences that branch: each branch goes on where the common beginning ends.

    Args:
        branches: ``[B, T]`` int64, 0 in the common beginning (and in padding at the end), k in the k-th branch.

    Returns:
        ``[B, T]`` int64: with branches 0 0 0 1 1 2 2 2 the positions 0 1 2 3 4 3 4 5.
    """
    index = torch.arange(branches.shape[1], device=branches.device).expand_as(branches)
    new = torch.zeros_like(branches, dtype=torch.bool)
    new[:, 1:] = branches[:, 1:] != branches[:, :-1]
    start = torch.where(new, index, 0).cummax(1).values  # where the branch of each position begins
    common = torch.where(new, index, branches.shape[1]).amin(1, keepdim=True)  # length of the beginning
    return torch.where(start == 0, index, common + index - start)


def branch_mask(branches: Tensor) -> Tensor:
    """Which earlier positions each may see, ``[B, T, T]`` for ``[B, T]``: the common beginning and its own branch."""
    same = branches[:, :, None] == branches[:, None, :]
    causal = torch.ones(branches.shape[1], branches.shape[1], dtype=torch.bool, device=branches.device).tril()
    return (same | (branches[:, None, :] == 0)) & causal


class KVCache:
    """Keys and values of all layers, allocated once.

    Attributes:
        keys, values: ``[L, B, K, positions, h]``.
        length: how many positions are filled; `Stack.forward` moves it on.
    """

    def __init__(self, layers: int, batch: int, heads: int, positions: int, width: int, like: Tensor) -> None:
        shape = (layers, batch, heads, positions, width)
        self.keys = torch.zeros(shape, device=like.device, dtype=like.dtype)
        self.values = torch.zeros_like(self.keys)
        self.positions = positions
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write ``k`` and ``v`` ``[B, K, T, h]`` after what is there and return all of both, ``[B, K, length + T, h]``.

        Raises:
            ValueError: if the cache is full.
        """
        end = self.length + k.shape[2]
        if end > self.positions:
            raise ValueError(f"the cache holds {self.positions} positions, {end} are needed")
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Attention(nn.Module):
    """Multi-head attention with rotary positions and shared key/value heads (GQA, Ainslie et al., 2023)."""

    def __init__(self, width: int, heads: int, kv_heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width, self.causal = heads, kv_heads, width // heads, causal
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,  # [B, T, D]
        rope: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,  # [B, 1, 1 or T, T], True where a key may be seen
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attend over ``x`` and, with a cache, over what came before it; returns ``[B, T, D]``."""
        b, t, d = x.shape
        x = narrow(x)
        q = self.query(x).view(b, t, self.heads, self.head_width).transpose(1, 2)  # [B, H, T, h]
        k = self.key(x).view(b, t, self.kv_heads, self.head_width).transpose(1, 2)  # [B, K, T, h]
        v = self.value(x).view(b, t, self.kv_heads, self.head_width).transpose(1, 2)
        kind = q.dtype
        if x.device.type == "cpu":
            # The CPU's bf16 kernel is four to seven times slower than the fp32 one on short sequences (docs/log.md).
            q, k, v = q.float(), k.float(), v.float()
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        past = 0
        if cache is not None:
            past = cache.length
            k, v = cache.append(layer, k, v)
        if self.kv_heads < self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)  # [B, H, past + T, h]
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        if self.causal and past and t > 1:
            # SDPA's own causal mask starts at the first key, so a chunk after a prefill needs its mask spelled out.
            mask = torch.ones(t, past + t, dtype=torch.bool, device=x.device).tril(past)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal and past == 0 and t > 1 and mask is None
        )
        return self.out(y.transpose(1, 2).reshape(b, t, d).to(kind))


class SwiGLU(nn.Module):
    """Gated feed-forward (Shazeer, 2020): three matrices of D x F."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        x = narrow(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


class MLP(nn.Module):
    """Plain feed-forward with GELU: two matrices of D x F."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        return self.down(F.gelu(self.up(x)))


class MoE(nn.Module):
    """Mixture of SwiGLU experts: each position goes to its ``top`` best experts.

    ``balance`` holds the load-balancing loss of the last call (Fedus et al., 2021, equation 4): 1 when the experts
    share the positions equally, up to ``experts`` when one takes all.
    """

    def __init__(self, width: int, hidden: int, experts: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(width, hidden) for _ in range(experts))
        self.balance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` to ``[B, T, D]``."""
        flat = x.reshape(-1, x.shape[-1])  # [N, D]
        probability = self.router(flat).float().softmax(-1)  # [N, E]
        weight, chosen = probability.topk(self.top, dim=-1)  # [N, top]
        if self.top > 1:  # a lone expert keeps its probability: normalised to 1 it would give the router no gradient
            weight = weight / weight.sum(-1, keepdim=True)
        weight = weight.to(x.dtype)
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            rows, slot = (chosen == index).nonzero(as_tuple=True)
            out = out.index_add(0, rows, expert(flat[rows]) * weight[rows, slot, None])
        share = F.one_hot(chosen, len(self.experts)).float().mean((0, 1))  # [E] of the positions
        self.balance = len(self.experts) * (share * probability.mean(0)).sum()
        return out.view_as(x)


class Block(nn.Module):
    """One transformer layer: attention, then feed-forward, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int, kv_heads: int, feed_forward: nn.Module, causal: bool) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = Attention(width, heads, kv_heads, causal)
        self.norm2 = RMSNorm(width)
        self.feed_forward = feed_forward

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """``[B, T, D]`` to ``[B, T, D]``; see `Attention.forward` for the rest."""
        x = x + self.attention(self.norm1(x), rope, mask, cache, layer)
        return x + self.feed_forward(self.norm2(x))


class Stack(nn.Module):
    """Blocks one after another with their rotary positions and a last normalisation.

    Args:
        blocks: the layers, all alike.
        width: D.
        positions: the longest sequence; 0 for no rotary positions.
        theta: base of the rotary frequencies.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, blocks: list[Block], width: int, positions: int, theta: float = 10000.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm(width)
        self.positions = positions
        cos, sin = rope_table(positions, blocks[0].attention.head_width, theta)
        # Recomputed from the configuration, so not part of a checkpoint.
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def new_cache(self, batch: int, positions: int) -> KVCache:
        """An empty cache for ``positions`` positions."""
        attention = self.blocks[0].attention
        assert isinstance(attention, Attention)
        return KVCache(
            len(self.blocks), batch, attention.kv_heads, positions, attention.head_width, attention.key.weight
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        checkpointing: bool = False,
        branches: Tensor | None = None,
    ) -> Tensor:
        """Run all layers.

        Args:
            x: ``[B, T, D]``.
            mask: ``[B, T]``, True at real positions, or None; for stacks that look both ways.
            cache: holds the positions before ``x`` and takes these too.
            checkpointing: recompute each layer in the backward pass instead of storing it.
            branches: ``[B, T]`` int64 of sequences that branch (see `branch_positions`), or None; for causal stacks,
                without a cache.

        Returns:
            Normalised states ``[B, T, D]``.

        Raises:
            ValueError: if the sequence is longer than the stack's positions.
        """
        start = cache.length if cache is not None else 0
        end = start + x.shape[1]
        rope = None
        if self.positions:
            if end > self.positions:
                raise ValueError(f"sequence of {end} positions, the context holds {self.positions}")
            rope = (self.cos[start:end], self.sin[start:end])
        key_mask = mask[:, None, None, :] if mask is not None else None
        if branches is not None:
            positions = branch_positions(branches)
            rope = (self.cos[positions][:, None], self.sin[positions][:, None])  # [B, 1, T, h / 2]
            key_mask = branch_mask(branches)[:, None]  # [B, 1, T, T]
        for layer, block in enumerate(self.blocks):
            if checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, rope, key_mask, use_reentrant=False)
            else:
                x = block(x, rope, key_mask, cache, layer)
        if cache is not None:
            cache.length = end
        return self.norm(x)


def initialise(module: nn.Module, layers: int) -> None:
    """Normal weights of deviation 0.02; the matrices that write to the residual stream are scaled by depth (GPT-2)."""
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            continue
        deviation = 0.02
        if name.endswith(("out.weight", "down.weight")):
            deviation /= (2 * layers) ** 0.5
        nn.init.normal_(parameter, std=deviation)
