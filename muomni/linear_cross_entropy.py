"""Cross-entropy of a linear layer's outputs without ever holding all of them.

For a batch of 32 x 512 and a vocabulary of 32,000 the logits alone would be 2 GB in fp32, and their gradient as much
again. Here the logits of one chunk of positions become its loss and at once the gradients of the states and of the
layer's matrix, so that no chunk is kept or computed twice (the idea of Liger Kernel, Hsu et al., 2024).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits of one chunk: 16 M numbers, 64 MB in fp32, whatever the batch, context and vocabulary. A GPU takes 128 M in
# training, since it is done with 16 M before Python has started the next chunk.
CHUNK_LOGITS, CHUNK_LOGITS_GPU = 1 << 24, 1 << 27

IGNORED = -100  # the target of a position that does not count


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of ``states @ weight.T``; see `linear_cross_entropy`."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, kind: torch.dtype) -> Tensor:
        """Loss, and the gradients that `backward` only scales.

        Args:
            ctx: autograd's, which keeps the gradients.
            states: ``[N, D]``.
            weight: ``[V, D]``.
            targets: ``[N]`` int64, -100 where there is none.
            kind: of number in which the products are made.

        Returns:
            The sum in nats, a float32 scalar.
        """
        matrix = weight.to(kind)  # [V, D]
        size = max(1, (CHUNK_LOGITS_GPU if weight.is_cuda else CHUNK_LOGITS) // len(weight))
        state_gradient = torch.empty_like(states)
        weight_gradient = torch.zeros_like(weight)
        total = states.new_zeros((), dtype=torch.float32)
        for first in range(0, len(states), size):
            h, wanted = states[first : first + size].to(kind), targets[first : first + size, None]  # [C, D], [C, 1]
            counts = wanted != IGNORED
            wanted = wanted.where(counts, 0)
            logits = h @ matrix.T  # [C, V]
            most, index = logits.max(-1, keepdim=True)
            chance = logits.softmax(-1)
            # -log p of the target, from what neither overflows nor loses digits: with m the largest logit,
            # log(sum(exp(z - m))) is -log of the likeliest token's probability.
            losses = (most - logits.gather(1, wanted)).float() - chance.gather(1, index).float().log()
            total += (losses * counts).sum()
            del logits
            chance.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=kind))  # d loss / d logits
            state_gradient[first : first + size] = (chance @ matrix) * counts
            weight_gradient += chance.T @ (h * counts)
        ctx.save_for_backward(state_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale by the gradient of the sum."""
        states, weight = ctx.saved_tensors
        return states * gradient.to(states.dtype), weight * gradient.to(weight.dtype), None, None


def linear_cross_entropy(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies in nats of the logits ``states @ weight.T``.

    Under autocast the products are made in its precision. Without gradients the loss of each chunk is exact to fp32's
    digits; with them, to those of the products.

    Args:
        states: ``[N, D]``.
        weight: ``[V, D]``.
        targets: ``[N]`` int64, -100 where there is none.

    Returns:
        A scalar, float32.
    """
    if torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad):
        device = states.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            total: Tensor = LinearCrossEntropy.apply(states, weight, targets, kind)
        return total
    size = max(1, CHUNK_LOGITS // len(weight))
    parts = [
        F.cross_entropy(F.linear(h, weight).float(), t, reduction="sum", ignore_index=IGNORED)
        for h, t in zip(states.split(size), targets.split(size), strict=True)
    ]
    return torch.stack(parts).sum() if parts else states.sum() * 0
