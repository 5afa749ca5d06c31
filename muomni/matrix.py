"""A linear map with its weights in fp32, bf16 or int8, for a model that no longer learns."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from muomni.config import near
from muomni.device import cpu_has_fast_bf16
from muomni.errors import UserError

Weights = Literal["fp32", "bf16", "int8"]
FEW = 16  # rows of an input up to which PyTorch's product with int8 weights is the fastest on a CPU


def check_weights(weights: str, device: torch.device) -> None:
    """Refuse weights that are not known, or that a device would be very slow with.

    Raises:
        UserError: if so.
    """
    known = list(get_args(Weights))
    if weights not in known:
        raise UserError(f"weights {weights!r}: not known{near(weights, known)}; give {', '.join(known)}")
    if weights == "bf16" and device.type == "cpu" and not cpu_has_fast_bf16():
        raise UserError("weights bf16: this CPU does not multiply bfloat16 itself; give fp32 or int8")


class Matrix:
    """A linear map; what goes in and comes out is fp32.

    With bf16 and int8 weights the input is rounded to bf16, and the products are summed in fp32. In int8 each row is
    divided by a scale of its own first, so that its largest weight becomes 127 or -127.

    Args:
        weight: ``[N, K]``; in fp32 it is shared, not copied.
        weights: how it is kept.
    """

    def __init__(self, weight: Tensor, weights: Weights) -> None:
        weight, self.weights = weight.detach().float(), weights
        if weights == "int8":
            scale = weight.abs().amax(1).clamp_min(1e-12) / 127  # [N]
            self.weight = (weight / scale[:, None]).round().to(torch.int8)
            self.scale = scale.bfloat16()
        else:
            self.weight = weight.bfloat16() if weights == "bf16" else weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., K]`` to ``[..., N]``."""
        if self.weights == "fp32":
            return F.linear(x, self.weight)
        if self.weights == "bf16":
            return F.linear(x.bfloat16(), self.weight).float()
        flat = x.bfloat16().flatten(0, -2)
        if x.device.type == "cpu" and len(flat) <= FEW:
            y = torch._weight_int8pack_mm(flat, self.weight, self.scale).float()
        else:
            y = F.linear(flat, self.weight.bfloat16()).float() * self.scale.float()
        return y.view(*x.shape[:-1], -1)
