"""Asking the whole model many questions: greedy answers to conversations of the shards, in batches."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from muomni.data.dialogues import Dialogue, Dialogues
from muomni.fusion import fuse, lay_out
from muomni.omni import Omni
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer, render_chat

STRIDE = 8  # mel frames of one state of the audio encoder


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        text: of the answer.
        ids: its tokens, without the end.
        ended: whether the model ended it itself.
    """

    text: str
    ids: list[int]
    ended: bool


@torch.no_grad()
def greedy(
    thinker: Thinker, prompts: Tensor, stop: Collection[int], limit: int, banned: Collection[int] = ()
) -> list[list[int]]:
    """The likeliest tokens after prompts of one length, as `muomni.sampling.answer_tokens` gives them one by one.

    Args:
        thinker: the model.
        prompts: embeddings ``[B, T, D]``.
        stop: ids that end an answer.
        limit: tokens at most.
        banned: ids that are never given.

    Returns:
        The tokens of each, up to and with the one that ends it.
    """
    limit = min(limit, thinker.cfg.context - prompts.shape[1])
    answers: list[list[int]] = [[] for _ in prompts]
    if limit < 1:
        return answers
    cache = thinker.new_cache(len(prompts), prompts.shape[1] + limit)
    state = thinker(prompts, cache)[:, -1]  # [B, D]
    forbidden = torch.tensor(sorted(banned), dtype=torch.int64, device=prompts.device)
    open_rows = set(range(len(prompts)))
    for _ in range(limit):
        logits = thinker.logits(state)
        logits[:, forbidden] = -torch.inf
        tokens = logits.argmax(-1)
        for row, token in enumerate(tokens.tolist()):
            if row in open_rows:
                answers[row].append(token)
                if token in stop:
                    open_rows.discard(row)
        if not open_rows:
            break
        state = thinker(thinker.embed(tokens[:, None]), cache)[:, -1]
    return answers


class Asker:
    """A model and a split of conversations.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        data: the conversations, with their pictures and recordings, each of which is encoded once.
        limit: tokens of an answer at most.
        batch: conversations, pictures or recordings at once.
    """

    def __init__(self, model: Omni, tokenizer: Tokenizer, data: Dialogues, limit: int, batch: int = 64) -> None:
        self.model, self.tokenizer, self.data, self.limit, self.batch = model, tokenizer, data, limit, batch
        self.device = model.audio_projector.weight.device
        self.features: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, dialogues: Sequence[Dialogue]) -> None:
        """Run the encoders over what the conversations show and say and was not encoded before."""
        wanted = {digest for d in dialogues for digest in d.media.values()} - self.features.keys()
        pictures = sorted(wanted & self.data.pictures.keys())
        for at in range(0, len(pictures), self.batch):
            part = pictures[at : at + self.batch]
            pixels = torch.stack([self.data.pictures[digest] for digest in part]).to(self.device).float() / 255
            self.features.update(zip(part, self.model.image_features(pixels), strict=True))
        most = self.model.cfg.audio_encoder.positions * STRIDE
        for digest in sorted(wanted & self.data.mels.keys()):
            mel = self.data.mels[digest][:most].to(self.device)
            states, _ = self.model.audio_encoder(mel[None], torch.tensor([len(mel)], device=self.device))
            self.features[digest] = states[0]

    def prompt(self, dialogue: Dialogue) -> tuple[list[int], list[tuple[str, Tensor]]]:
        """Token ids up to where the answer begins, and the states that its placeholders stand for."""
        segments = render_chat(dialogue.messages[:-1], self.tokenizer, add_generation_prompt=True)
        media = [(s.kind, self.features[dialogue.media[s.value]]) for s in segments if s.kind != "text"]
        return lay_out(segments, self.tokenizer, [len(states) for _, states in media]).ids, media

    def embed(self, prompts: Sequence[tuple[list[int], list[tuple[str, Tensor]]]]) -> Tensor:
        """Prompts of one length as the Thinker's input ``[B, T, D]``."""
        ids = torch.tensor([ids for ids, _ in prompts], device=self.device)
        states = {
            kind: [states for _, media in prompts for k, states in media if k == kind] for kind in ("image", "audio")
        }
        joined = {kind: torch.cat(rows) if rows else None for kind, rows in states.items()}
        return fuse(self.model, ids, self.tokenizer, joined["image"], joined["audio"])

    @torch.no_grad()
    def ask(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        """The answers, in order. One whose question fills the context is empty."""
        self.encode(dialogues)
        prompts = [self.prompt(dialogue) for dialogue in dialogues]
        by_length: dict[int, list[int]] = {}
        for index, (ids, _) in enumerate(prompts):
            by_length.setdefault(len(ids), []).append(index)
        replies: dict[int, Reply] = {}
        stop = {self.tokenizer.end, self.tokenizer.eos}
        banned = self.tokenizer.controls - stop
        for length, members in sorted(by_length.items()):
            for at in range(0, len(members), self.batch):
                part = members[at : at + self.batch]
                if length < self.model.cfg.thinker.context:
                    x = self.embed([prompts[i] for i in part])
                    answers = greedy(self.model.thinker, x, stop, self.limit, banned)
                else:
                    answers = [[] for _ in part]
                for i, ids in zip(part, answers, strict=True):
                    closed = bool(ids) and ids[-1] in stop
                    ids = ids[:-1] if closed else ids
                    replies[i] = Reply(self.tokenizer.decode(ids), ids, closed)
        return [replies[i] for i in range(len(dialogues))]

    @torch.no_grad()
    def states(self, dialogue: Dialogue, ids: Sequence[int]) -> Tensor:
        """The Thinker's state after reading each token of an answer, ``[n, D]``, for the Talker."""
        prompt = self.prompt(dialogue)
        answer = self.model.thinker.embed(torch.tensor([list(ids)], device=self.device))
        x = torch.cat((self.embed([prompt]), answer), dim=1)
        return self.model.thinker(x)[0, len(prompt[0]) :]


def question_of(dialogue: Dialogue) -> str:
    """The words of the last question, without its pictures and recordings."""
    return " ".join(part["text"] for part in dialogue.messages[-2]["content"] if part["type"] == "text")


def with_media_of(dialogue: Dialogue, other: Dialogue, ending: str) -> Dialogue:
    """A conversation with another one's pictures (``.png``) or recordings (``.flac``) in the place of its own.

    Raises:
        ValueError: if they have different numbers of them.
    """
    mine = [name for name in dialogue.media if name.endswith(ending)]
    others = [digest for name, digest in other.media.items() if name.endswith(ending)]
    if len(mine) != len(others):
        raise ValueError(f"{dialogue.key} has {len(mine)} of {ending}, {other.key} {len(others)}")
    return replace(dialogue, media=dialogue.media | dict(zip(mine, others, strict=True)))
