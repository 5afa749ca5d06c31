"""The Thinker: a small decoder-only language model that all inputs meet in.

Causal attention with shared key/value heads, rotary positions, SwiGLU or a mixture of experts, RMSNorm. It takes
embeddings rather than token ids, since pictures and sounds enter as embeddings too.
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.config import Section
from muomni.layers import Block, KVCache, MoE, Stack, SwiGLU, initialise
from muomni.linear_cross_entropy import linear_cross_entropy


class ThinkerConfig(Section):
    """Shape of the Thinker."""

    vocab_size: int = Field(ge=64, le=65536, description="tokens of the vocabulary; also the tokenizer's size")
    d_model: int = Field(ge=8, le=4096, description="width of the states")
    n_layers: int = Field(ge=1, le=64, description="transformer layers")
    n_heads: int = Field(ge=1, le=64, description="attention heads")
    n_kv_heads: int = Field(ge=1, le=64, description="key/value heads, shared by the attention heads")
    d_ff: int = Field(ge=8, le=16384, description="width of the SwiGLU feed-forward")
    context: int = Field(ge=16, le=8192, description="positions of a sequence at most")
    rope_theta: float = Field(gt=1, description="base of the rotary frequencies")
    tie_embeddings: bool = Field(description="use the embedding matrix as the output head too")
    n_experts: int = Field(ge=0, le=64, description="experts of each layer; 0 for one dense feed-forward")
    experts_per_token: int = Field(ge=1, le=8, description="experts that each token goes to")
    balance_weight: float = Field(ge=0, description="weight of the experts' load-balancing loss")

    @model_validator(mode="after")
    def check(self) -> "ThinkerConfig":
        """Heads divide the width, key/value heads divide the heads."""
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of 2 x n_heads {self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.n_experts and self.experts_per_token > self.n_experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} exceeds n_experts {self.n_experts}")
        return self


class Thinker(nn.Module):
    """Decoder-only language model over embeddings."""

    def __init__(self, cfg: ThinkerConfig) -> None:
        super().__init__()
        self.cfg = cfg

        def feed_forward() -> nn.Module:
            if cfg.n_experts:
                return MoE(cfg.d_model, cfg.d_ff, cfg.n_experts, cfg.experts_per_token)
            return SwiGLU(cfg.d_model, cfg.d_ff)

        blocks = [
            Block(cfg.d_model, cfg.n_heads, cfg.n_kv_heads, feed_forward(), causal=True) for _ in range(cfg.n_layers)
        ]
        self.embedding = nn.Embedding(cfg.vocab_size, cfg.d_model)
        self.stack = Stack(blocks, cfg.d_model, cfg.context, cfg.rope_theta)
        self.head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
        initialise(self, cfg.n_layers)
        if cfg.tie_embeddings:
            self.head.weight = self.embedding.weight

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids ``[B, T]`` int64 to embeddings ``[B, T, D]``."""
        return self.embedding(ids)

    def forward(
        self,
        x: Tensor,
        cache: KVCache | None = None,
        checkpointing: bool = False,
        branches: Tensor | None = None,
    ) -> Tensor:
        """Embeddings ``[B, T, D]`` to states ``[B, T, D]``.

        With ``branches`` ``[B, T]`` a sequence is a beginning and several continuations that do not see each other
        (`muomni.layers.branch_positions`): as many questions about one picture, read in one go.

        Padding goes to the right of a sequence, where causal attention never lets it reach a real position.

        Raises:
            ValueError: if the sequence exceeds the context.
        """
        return self.stack(x, cache=cache, checkpointing=checkpointing, branches=branches)

    def new_cache(self, batch: int, positions: int) -> KVCache:
        """An empty key/value cache."""
        return self.stack.new_cache(batch, positions)

    def logits(self, states: Tensor) -> Tensor:
        """States ``[..., D]`` to logits ``[..., V]``."""
        return self.head(states)

    def loss(self, states: Tensor, targets: Tensor, select: bool = True) -> Tensor:
        """Mean cross-entropy in nats over the targets that count.

        The states of position t are scored against ``targets[t]``: the caller has shifted the targets, once.
        A batch x time x vocabulary tensor of logits never exists; see `muomni.linear_cross_entropy`.

        Args:
            states: ``[B, T, D]``.
            targets: ``[B, T]`` int64, -100 where no answer is learned.
            select: make logits only where a target counts. That is less work where many do not, but Python has to wait
                for a GPU to know where.
        """
        if not select:
            counted = (targets != -100).sum().clamp_min(1)
            return linear_cross_entropy(states.flatten(0, -2), self.head.weight, targets.flatten()) / counted
        keep = targets.reshape(-1) != -100
        flat = states.reshape(-1, states.shape[-1])[keep]  # [N, D]
        wanted = targets.reshape(-1)[keep]  # [N]
        total = linear_cross_entropy(flat, self.head.weight, wanted)
        return total / max(1, len(wanted))

    def balance_loss(self) -> Tensor | None:
        """Weighted load-balancing loss of the last forward pass, or None for a dense model."""
        losses = [m.balance for m in self.modules() if isinstance(m, MoE) and m.balance is not None]
        return self.cfg.balance_weight * torch.stack(losses).mean() if losses else None
