"""What the pictures are drawn from: the checkpoints, shards and curves of one run of the graph."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.audio_encoder import CTCHead
from muomni.data.batches import pad
from muomni.data.dialogues import Dialogues
from muomni.data.pictures import Picture, load_pictures
from muomni.data.shards import read_shards
from muomni.data.speech import Recording, as_recording, collate_mels
from muomni.errors import UserError
from muomni.fusion import fuse
from muomni.omni import load_omni
from muomni.sampling import Sampling, answer_tokens
from muomni.train.conversing import Sample
from pipelines.components import load_component

STAGES = ("a-thinker", "b-audio-encoder", "c-vision-encoder", "d-codec", "d-talker", "e-omni")
SPLIT = "valid"  # the test split is for the evaluation alone


@dataclass
class Asked:
    """A conversation as the Thinker reads it.

    Attributes:
        sample: its ids, targets and media.
        pixels: the first picture ``[3, S, S]`` uint8, or None.
        mels: its recordings' log-mels ``[T, M]``.
        states: of the encoders: of pictures ``[N, Dv]`` and of recordings ``[M, Da]``, or None.
        x: fused embeddings ``[1, T, D]`` of question and answer.
    """

    sample: Sample
    pixels: Tensor | None
    mels: list[Tensor]
    states: tuple[Tensor | None, Tensor | None]
    x: Tensor


class Trained:
    """A run of the graph in a folder.

    Args:
        root: holds ``checkpoints/``, ``data/`` and ``metrics/``.

    Raises:
        UserError: if something of it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.checkpoints = root, root / "checkpoints"
        self.model, self.tokenizer, self.card = load_omni(self.checkpoints / "omni")
        self.mel = self.model.cfg.mel

    @property
    def speaker(self) -> str:
        """The voice that the Talker speaks in."""
        return self.model.talker.cfg.voices[0]

    @cached_property
    def ctc(self) -> CTCHead:
        """The training-only head of stage B."""
        return load_component(CTCHead(self.model.cfg.audio_encoder), self.checkpoints / "audio_encoder", "ctc.").eval()

    def stream(self, split: str) -> Iterator[Recording]:
        """Recordings of the Talker's voice in the order of their shards."""
        folder = self.root / "data/shards/mels"
        for sample in read_shards(folder, split):
            recording = as_recording(folder, sample, [self.speaker])
            if recording is not None:
                yield recording

    @cached_property
    def recordings(self) -> list[Recording]:
        """The first held-out recordings of the Talker's voice."""
        return list(islice(self.stream(SPLIT), 40))

    @cached_property
    def pictures(self) -> list[Picture]:
        """Held-out pictures."""
        return load_pictures(self.root / "data/shards/images", SPLIT)

    @cached_property
    @torch.no_grad()
    def mean_picture(self) -> Tensor:
        """The mean states of some held-out pictures, ``[P, Dv]``: as a picture that shows nothing in particular."""
        some = torch.stack([one.pixels for one in self.pictures[:100]]).float() / 255
        return self.model.image_features(some).mean(0)

    @cached_property
    def dialogues(self) -> Dialogues:
        """Held-out conversations."""
        return Dialogues(self.root / "data/shards/conversations", SPLIT, self.mel)

    def curves(self, stage: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What a training told: rows of its steps, and of its evaluations.

        Raises:
            UserError: if the files are not there.
        """
        folder = self.root / "metrics/train" / stage
        try:
            train, valid = (json.loads((folder / f"{name}.json").read_text()) for name in ("train", "valid"))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no curves there ({error}); run `dvc repro {stage}`") from None
        return train, valid

    def conversation(self, task: str, answer: str) -> int:
        """Number of the held-out conversation of a task with this answer, else of the first that has a picture."""
        items = self.dialogues.items
        mine = [n for n, one in enumerate(items) if one.task == task]
        mine = mine or [n for n, one in enumerate(items) if any(name.endswith(".png") for name in one.media)]
        return next((n for n in mine if items[n].answer == answer), mine[0])

    def recording(self, text: str) -> Recording:
        """The held-out recording of a text, else the first."""
        return next((one for one in self.recordings if one.text == text), self.recordings[0])

    @torch.no_grad()
    def hear(self, mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Log-mels to the audio encoder's states ``[B, T, D]`` and their lengths ``[B]``."""
        states, lengths = self.model.audio_encoder(*collate_mels(list(mels)))
        return states, lengths

    @torch.no_grad()
    def asked(self, number: int, question: str = "", change: Callable[[Tensor], Tensor] | None = None) -> Asked:
        """A held-out conversation, fused; another question may stand in for its text, `change` alter its picture.

        Args:
            number: of the conversation.
            question: instead of its own; empty for that.
            change: of a picture's states ``[P, Dv]``.
        """
        dialogue = self.dialogues.items[number]
        if question:
            content = [p for p in dialogue.messages[0]["content"] if p["type"] != "text"]
            content.append({"type": "text", "text": question})
            message = {**dialogue.messages[0], "content": content}
            dialogue = type(dialogue)(**{**vars(dialogue), "messages": [message, *dialogue.messages[1:]]})
        data = self.dialogues
        names = dialogue.media.items()
        sizes = [
            self.model.image_positions if name.endswith(".png") else -(-len(data.mels[digest]) // 8)
            for name, digest in names
        ]
        sample = Sample(dialogue, self.tokenizer, sizes)
        pixels = [data.pictures[name] for name in sample.pictures]
        mels = [data.mels[name] for name in sample.recordings]
        seen = None
        if pixels:
            states = self.model.image_features(torch.stack(pixels).float() / 255)  # [N, P, Dv]
            seen = torch.cat([change(one) if change else one for one in states])
        heard = None
        if mels:
            rows, lengths = self.model.audio_encoder(pad(mels), torch.tensor([len(mel) for mel in mels]))
            heard = torch.cat([row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)])
        x = fuse(self.model, sample.ids[None], self.tokenizer, seen, heard)
        return Asked(sample, pixels[0] if pixels else None, mels, (seen, heard), x)

    def answer(self, prompt: Tensor) -> list[int]:
        """The likeliest answer to a fused prompt ``[1, T, D]``, without its end."""
        end = self.tokenizer.end
        banned = self.tokenizer.controls - {end}
        made = answer_tokens(self.model.thinker, prompt, {end}, 24, Sampling(), torch.Generator(), banned)
        return [token for token, _ in made if token != end]
