"""The parts that become ONNX files, each a function of tensors to tensors.

The modules are the model's own. What is here gives them the inputs and outputs of a file: caches come in and go out,
and what Python decides while it runs is decided by tensors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muomni.export.behind import causal_mask, places_behind, read_behind, real_positions
from muomni.layers import MoE
from muomni.omni import Omni
from muomni.talker import LONGEST_STAY


class Grown:
    """Keys and values ``[L, B, K, S, h]`` that come in, and those that go out."""

    length = 0  # see `muomni.export.behind.read_behind`

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.old = keys, values
        self.new: tuple[list[Tensor], list[Tensor]] = ([], [])

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put new ones behind the old ones of a layer."""
        for old, new, found in zip(self.old, (k, v), self.new, strict=True):
            found.append(torch.cat((old[layer], new), dim=2))
        return self.new[0][-1], self.new[1][-1]

    def all(self) -> tuple[Tensor, Tensor]:
        """All of them."""
        return torch.stack(self.new[0]), torch.stack(self.new[1])


class DenseMoE(nn.Module):
    """`muomni.layers.MoE` with every expert at work on every position: a graph has no lists of unknown length."""

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.moe = moe

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` to ``[B, T, D]``."""
        weight, chosen = self.moe.router(x).float().softmax(-1).topk(self.moe.top, dim=-1)  # [B, T, top]
        if self.moe.top > 1:
            weight = weight / weight.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.moe.experts):
            share = torch.where(chosen == index, weight, 0.0).sum(-1, keepdim=True)
            out = out + expert(x) * share.to(x.dtype)
        return out


class Part(nn.Module):
    """A part of the model."""

    def __init__(self, model: Omni) -> None:
        super().__init__()
        self.model = model


class Embedding(Part):
    """Token ids ``[B, T]`` to embeddings ``[B, T, D]``."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.thinker.embed(ids)


class VisionEncoder(Part):
    """Pictures ``[N, 3, S, S]``, 0 to 1, to embeddings ``[N, P, D]`` for the places of ``<|image|>``."""

    def forward(self, pixels: Tensor) -> Tensor:
        states = self.model.image_features(pixels)
        places = torch.arange(self.model.image_positions)
        return self.model.vision_projector(states) + self.model.places(places)


class AudioEncoder(Part):
    """Log-mel ``[M, F, bands]``, lengths ``[M]``, to embeddings ``[M, ceil(F / 8), D]`` and their lengths ``[M]``."""

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states, lengths = self.model.audio_encoder(mel, lengths)
        return self.model.audio_projector(states), lengths


class ThinkerPart(Part):
    """Embeddings ``[B, T, D]`` behind a cache of S places to states, the next token's logits, and the grown cache.

    ``mask`` ``[B, S + T]`` is 1 at real places; ``last`` ``[B]`` is the place among the T whose logits are wanted.
    """

    def forward(
        self, embeddings: Tensor, mask: Tensor, last: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        thinker, past = self.model.thinker, past_keys.shape[3]
        torch._check(mask.shape[1] == past + embeddings.shape[1])
        places = places_behind(past, embeddings)
        real, cache = mask.bool(), Grown(past_keys, past_values)
        states = read_behind(thinker.stack, embeddings, real_positions(real, places), causal_mask(real, places), cache)
        chosen = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return states, thinker.logits(chosen), *cache.all()


class Characters(Part):
    """Characters ``[B, N]``, states of the Thinker for each ``[B, N, Dt]``, and voices ``[B]`` to ``[B, N, D]``."""

    def forward(self, characters: Tensor, states: Tensor, voice: Tensor) -> Tensor:
        return self.model.talker.condition(characters, states, voice)


class TalkerPart(Part):
    """One frame: its codes ``[B, Q]``, the chance to go on to the next character ``[B]``, and the grown cache.

    ``previous`` ``[B, Q]`` are the codes one frame earlier (the number of codes before the first), ``position`` ``[B]``
    the character that the frame is on, ``stay`` ``[B]`` the frames since it began. The codes are the likeliest after
    ``noise`` ``[B, Q, codes]`` is added to the logits: zeros for the likeliest of all, and a temperature times Gumbel's
    noise for a draw at this temperature.
    """

    def forward(
        self,
        previous: Tensor,
        characters: Tensor,
        position: Tensor,
        stay: Tensor,
        noise: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        talker, cache = self.model.talker, Grown(past_keys, past_values)
        own = characters.gather(1, position[:, None, None].expand(-1, 1, characters.shape[2]))
        stays = talker.condition.stay(stay.clamp_max(LONGEST_STAY - 1))[:, None]
        x = talker.embed_codes(previous[:, None]) + own + stays
        places = torch.zeros_like(position)[:, None] + past_keys.shape[3]
        state = read_behind(talker.stack, x, places, None, cache)[:, 0]  # [B, D]
        advance = talker.advance(state)[:, 0].sigmoid()
        codes, logits = list[Tensor](), list[Tensor]()
        for q, head in enumerate(talker.code_heads):
            logits.append(head(state))
            codes.append((logits[-1] + noise[:, q]).argmax(-1))
            state = state + talker.code_embedding[q](codes[-1])
        return torch.stack(codes, 1), advance, torch.stack(logits, 1), *cache.all()


class CodecDecoder(Part):
    """Codes ``[B, T, Q]`` to log-mel ``[B, T, bands]`` at 50 Hz."""

    def forward(self, codes: Tensor) -> Tensor:
        codec = self.model.codec
        books = [F.embedding(codes[..., q], book.codebook) for q, book in enumerate(codec.books)]
        return codec.standardise.inverse(codec.reconstruct(torch.stack(books).sum(0)))
