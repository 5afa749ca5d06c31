"""The vision encoder: a ViT-Tiny (Dosovitskiy et al., 2020) of square patches and one CLS position."""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.config import Section
from muomni.layers import MLP, Block, Stack, initialise


class VisionEncoderConfig(Section):
    """Shape of the vision encoder."""

    image_size: int = Field(ge=16, le=1024, description="pixels on a side of the square input")
    patch_size: int = Field(ge=2, le=64, description="pixels on a side of a patch")
    d_model: int = Field(ge=8, le=1024, description="width of the states")
    n_layers: int = Field(ge=1, le=32, description="transformer layers")
    n_heads: int = Field(ge=1, le=32, description="attention heads")
    d_ff: int = Field(ge=8, le=8192, description="width of the feed-forward")

    @model_validator(mode="after")
    def check(self) -> "VisionEncoderConfig":
        """Patches tile the picture and heads divide the width."""
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        return self


class VisionEncoder(nn.Module):
    """Pictures to one CLS state and one state a patch."""

    def __init__(self, cfg: VisionEncoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.side = cfg.image_size // cfg.patch_size  # patches on a side
        self.patch = nn.Linear(3 * cfg.patch_size**2, cfg.d_model)
        self.cls = nn.Parameter(torch.zeros(1, 1, cfg.d_model))
        self.position = nn.Parameter(torch.zeros(1, 1 + self.side**2, cfg.d_model))
        blocks = [
            Block(cfg.d_model, cfg.n_heads, cfg.n_heads, MLP(cfg.d_model, cfg.d_ff), causal=False)
            for _ in range(cfg.n_layers)
        ]
        self.stack = Stack(blocks, cfg.d_model, positions=0)  # positions are learned, not rotary
        initialise(self, cfg.n_layers)

    def forward(self, images: Tensor, checkpointing: bool = False) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        Args:
            images: ``[B, 3, S, S]`` float, 0 to 1.
            checkpointing: recompute each layer in the backward pass instead of storing it.

        Returns:
            CLS ``[B, D]`` and patches ``[B, N, D]``, row by row from the top left.
        """
        b, p = images.shape[0], self.cfg.patch_size
        x = (images * 2 - 1).unfold(2, p, p).unfold(3, p, p)  # [B, 3, n, n, p, p]
        x = x.permute(0, 2, 3, 1, 4, 5).reshape(b, self.side**2, -1)  # [B, N, 3 p p]
        x = torch.cat((self.cls.expand(b, -1, -1), self.patch(x)), dim=1) + self.position  # [B, 1 + N, D]
        x = self.stack(x, checkpointing=checkpointing)
        return x[:, 0], x[:, 1:]


def pool_grid(patches: Tensor, cells: int) -> Tensor:
    """Average patches ``[B, N, D]`` to a coarser grid ``[B, cells * cells, D]``, row by row."""
    b, n, d = patches.shape
    side = int(n**0.5)
    grid = patches.transpose(1, 2).reshape(b, d, side, side)
    return nn.functional.adaptive_avg_pool2d(grid, cells).flatten(2).transpose(1, 2)
