"""Conversations as stage E learns from them: each as a sequence of the Thinker, and batches of them cut into parts."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from muomni.data.dialogues import Dialogue
from muomni.fusion import lay_out
from muomni.tokenizer import Tokenizer, render_chat
from muomni.train.split import longest, runs, share


class Sample:
    """A conversation as tensors: placeholders where features go, and what the model has to say.

    Args:
        dialogue: the conversation.
        tokenizer: its tokenizer.
        sizes: positions of each picture and recording.
        apart: ask each question by itself right after the picture, in a branch of its own. In a conversation the
            answers before give later ones away, and the model learns to read them instead of looking.
    """

    def __init__(self, dialogue: Dialogue, tokenizer: Tokenizer, sizes: Sequence[int], apart: bool = False) -> None:
        self.dialogue = dialogue
        layout = lay_out(render_chat(dialogue.messages, tokenizer), tokenizer, sizes)
        self.ids = torch.tensor(layout.ids[:-1])  # the last token has nothing to predict
        following, answer = torch.tensor(layout.ids[1:]), torch.tensor(layout.answer[1:])
        self.targets = torch.where(answer, following, -100)
        self.prompt = len(layout.ids) - layout.answer[::-1].index(False)  # positions before the last answer
        self.pictures = [dialogue.media[str(ref)] for kind, ref, _ in layout.features if kind == "image"]
        self.recordings = [dialogue.media[str(ref)] for kind, ref, _ in layout.features if kind == "audio"]
        self.branches = torch.zeros_like(self.ids)
        if apart:
            self.branch(tokenizer, sizes)

    def branch(self, tokenizer: Tokenizer, sizes: Sequence[int]) -> None:
        """Lay out the picture once, and after it each question with its answer as if it were the first."""
        messages = self.dialogue.messages
        media = [part for part in messages[0]["content"] if part["type"] != "text"]
        ids: list[int] = []
        targets: list[int] = []
        branches: list[int] = []
        for number in range(0, len(messages), 2):
            text = [part for part in messages[number]["content"] if part["type"] == "text"]
            turn = [{"role": "user", "content": media + text}, messages[number + 1]]
            layout = lay_out(render_chat(turn, tokenizer), tokenizer, sizes)
            begin = 1 + sum(sizes)  # <|user|> and the placeholders
            if not number:
                ids, targets, branches = layout.ids[:begin], [-100] * begin, [0] * begin
            ids += layout.ids[begin:-1]
            targets += [
                token if said else -100
                for token, said in zip(layout.ids[begin + 1 :], layout.answer[begin + 1 :], strict=True)
            ]
            branches += [number // 2 + 1] * (len(layout.ids) - 1 - begin)
        self.ids, self.targets, self.branches = torch.tensor(ids), torch.tensor(targets), torch.tensor(branches)


def split_conversations(
    batch: dict[str, Any], parts: int, image: int, audio: int, positions: int, padding: int
) -> list[tuple[dict[str, Any], float]]:
    """Conversations, whose loss is a mean over the answers' tokens.

    Args:
        batch: ``ids``, ``targets`` and perhaps ``branches`` ``[B, T]``, and of all pictures and recordings in reading
            order what there is: ``images`` and ``audio`` with a state for each placeholder, ``pixels`` with an entry a
            picture, ``mels`` with an entry a recording.
        parts: how many.
        image: ids of the placeholders.
        audio: ids of the placeholders.
        positions: placeholders of one picture.
        padding: id that fills up rows on the right.
    """
    ids, counts = batch["ids"], batch["targets"] != -100
    places = {kind: [0, *(ids == token).sum(1).cumsum(0).tolist()] for kind, token in (("v", image), ("a", audio))}
    found = []
    for rows in runs(len(ids), parts):
        length = longest(ids[rows] != padding)
        part: dict[str, Any] = {name: batch[name][rows, :length] for name in ("ids", "targets")}
        if "branches" in batch and bool(batch["branches"][rows].any()):
            part["branches"] = batch["branches"][rows, :length]
        (v0, v1), (a0, a1) = ((ends[rows.start], ends[rows.stop]) for ends in places.values())
        media = {
            "images": batch.get("images", ())[v0:v1],
            "pixels": batch.get("pixels", ())[v0 // positions : v1 // positions],
            "audio": batch.get("audio", ())[a0:a1],
            "mels": between(batch.get("mels", ()), a0, a1),
        }
        part |= {name: some for name, some in media.items() if len(some)}
        found.append((part, share(counts[rows], counts)))
    return found


def between(mels: Sequence[Tensor], first: int, end: int) -> list[Tensor]:
    """Log-mels ``[T, M]`` whose states lie between two positions, counted over the states of all of them."""
    ends = accumulate(-(-len(mel) // 8) for mel in mels)
    return [mel for mel, at in zip(mels, ends, strict=True) if first < at <= end]
