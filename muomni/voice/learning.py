"""Two trainings of a further voice: its own codec, and the rows of the Talker that are its own."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from muomni.codec import Codec
from muomni.data.batches import Buckets, pad
from muomni.talker import Talker
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.d_codec import CodecStageConfig, CodecTask
from muomni.train.speaking import Utterance, collate_utterances, gather_states, split_utterances, talker_loss
from muomni.voice.settings import VoiceConfig


class OwnCodecTask(CodecTask):
    """The codec stage's task, with one voice's log-mels ``[T, M]`` at 50 Hz, from a codec that is trained already."""

    def __init__(self, cfg: CodecStageConfig, codec: Codec, train: Sequence[Tensor], valid: Sequence[Tensor]) -> None:
        self.cfg, self.codec = cfg, codec
        self.modules = {"codec": codec}
        self.stream, self.train, self.valid = None, list(train), list(valid)
        with torch.no_grad():
            for quantiser in codec.books:  # as if every code had been chosen as often as in a batch, and there
                quantiser.counts.fill_(cfg.batch_size * cfg.segment / codec.cfg.codes)
                quantiser.sums.copy_(quantiser.codebook * quantiser.counts[:, None])

    def samples(self, step: int, folder: Path) -> None:
        """None."""


def shares_of(old: Sequence[Tensor], new: Sequence[Tensor], old_codes: int, new_codes: int) -> Tensor:
    """Which old codes go with which new ones.

    Args:
        old: codes ``[T, Q]`` of the old voice.
        new: for each those of the new voice, of the same frames.
        old_codes: of a codebook.
        new_codes: of one of the new voice.

    Returns:
        ``[Q, new_codes, old_codes]``: for each new code the shares of the old ones that are where it is; they sum to 1.
    """
    before, after = torch.cat(list(old)), torch.cat(list(new))
    counts = torch.full((before.shape[1], new_codes, old_codes), 1e-3)
    for q in range(len(counts)):
        counts[q].index_put_((after[:, q], before[:, q]), torch.ones(len(before)), accumulate=True)
    return counts / counts.sum(-1, keepdim=True)


class VoiceTask:
    """A voice's own rows of the Talker learn to say texts in its codes.

    Args:
        cfg: settings.
        talker: of `muomni.voice.growing.own_talker`.
        thinker: whose states it takes.
        tokenizer: of both.
        train, valid: utterances of the voice, in its own codes from 0 on.
        seed: of the batches.
    """

    best_by = "loss"

    def __init__(
        self,
        cfg: VoiceConfig,
        talker: Talker,
        thinker: Thinker,
        tokenizer: Tokenizer,
        train: Sequence[Utterance],
        valid: Sequence[Utterance],
        seed: int,
    ) -> None:
        self.cfg, self.talker, self.thinker, self.tokenizer = cfg, talker, thinker, tokenizer
        self.modules, self.frozen = {"talker": talker}, {"thinker": thinker}
        self.train, self.valid = train, valid
        self.buckets = Buckets([len(u.codes) for u in train], cfg.batch_size, seed)

    def collate(self, rows: Sequence[Utterance], noise: float, rng: torch.Generator) -> dict[str, Tensor]:
        """A batch with the token ids that the Thinker reads."""
        batch = collate_utterances(rows, self.talker.cfg.codes, noise, rng)
        ids = [[self.tokenizer.assistant, *u.ids, self.tokenizer.end] for u in rows]
        return batch | {"ids": pad([torch.tensor(i) for i in ids], self.tokenizer.pad)}

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Utterances of similar length."""
        rows = [self.train[i] for i in self.buckets.at(self.cfg.number(step, micro))]
        keep = torch.rand(len(rows), generator=rng) >= self.cfg.state_dropout
        return self.collate(rows, self.cfg.code_noise, rng) | {"keep": keep.float()}

    @torch.no_grad()
    def states(self, batch: dict[str, Tensor]) -> Tensor:
        """The Thinker's states of each character's token ``[B, N, Dt]``."""
        return gather_states(self.thinker(self.thinker.embed(batch["ids"])), 1, batch["tokens"])

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Codes and decisions to go on."""
        return talker_loss(self.talker, batch, self.states(batch) * batch["keep"][:, None, None])

    def split(self, batch: dict[str, Tensor], parts: int) -> list[tuple[dict[str, Tensor], float]]:
        """Fewer utterances at a time."""
        return split_utterances(batch, parts)

    def evaluate(self) -> dict[str, float]:
        """Loss on held-out utterances."""
        device = self.talker.advance.weight.device
        batch = self.collate(self.valid, 0.0, torch.Generator())
        batch = {key: value.to(device) for key, value in batch.items()}
        loss, values = talker_loss(self.talker, batch, self.states(batch))
        return {"loss": float(loss), **{key: float(value) for key, value in values.items() if key != "padding"}}

    def samples(self, step: int, folder: Path) -> None:
        """None; sounds are made once the training is over."""
