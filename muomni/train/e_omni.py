"""Stage E: all parts together learn to answer about text, pictures and speech, and to speak the answers.

The Thinker and the projectors learn from mixed conversations, on the answers only, and now and then from stage A's
text, which the Thinker would forget. Parts that are kept frozen never change, so what they make of every picture and
recording is computed once. The Talker keeps learning on the Thinker's states as they change.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from muomni.audio_encoder import normalise
from muomni.config import Section
from muomni.data.batches import Buckets, pad
from muomni.data.dialogues import Dialogues, Mixture
from muomni.data.speech import load_recordings
from muomni.data.tokens import TokenDataset
from muomni.device import Device
from muomni.errors import UserError
from muomni.evaluate.text_scores import character_error_rate
from muomni.fusion import fuse
from muomni.media import save_audio
from muomni.omni import Omni
from muomni.prompts import read_aloud
from muomni.sampling import Sampling, answer_tokens
from muomni.talker import spell
from muomni.tokenizer import Tokenizer
from muomni.train.conversing import Sample, split_conversations
from muomni.train.loop import TrainConfig
from muomni.train.shown import save_picture
from muomni.train.speaking import (
    Utterance,
    aligned_utterances,
    collate_utterances,
    gather_states,
    split_utterances,
    talker_loss,
)
from muomni.train.split import split_tokens

OWN = "own"  # the task of conversations that somebody brought (`muomni.data.own_conversations`)


class TaskWeights(Section):
    """Shares of the tasks in the training mixture, in any unit; 0 leaves a task out."""

    name: float = Field(ge=0, description="a picture of one thing: what is it?")
    caption: float = Field(ge=0, description="describe a picture")
    single: float = Field(ge=0, description="questions about a picture of one thing")
    scene: float = Field(ge=0, description="questions about several things")
    world: float = Field(ge=0, description="questions without a picture")
    dictation: float = Field(ge=0, description="a recording, written down")
    read_aloud: float = Field(ge=0, description="a sentence, read aloud")
    spoken_scene: float = Field(ge=0, description="spoken questions about a picture")
    spoken_world: float = Field(ge=0, description="spoken questions without a picture")
    own: float = Field(default=0.0, ge=0, description="conversations of your own (conversations.source)")


class OmniStageConfig(TrainConfig):
    """Section ``e_omni``."""

    weights: TaskWeights
    freeze_vision: bool = Field(description="keep the vision encoder as stage C left it")
    freeze_audio: bool = Field(description="keep the audio encoder as stage B left it")
    text_every: int = Field(
        ge=0, description="text of stage A is read at every so many steps, so that it is not forgotten; 0 for never"
    )
    text_batch: int = Field(ge=1, description="sequences in a batch of that text")
    text_length: int = Field(ge=8, le=8192, description="tokens of each")
    talker_every: int = Field(ge=0, description="the Talker learns at every so many steps; 0 to leave it as it is")
    talker_batch: int = Field(ge=1, description="utterances in the Talker's batch")
    code_noise: float = Field(ge=0, lt=1, description="share of the previous codes replaced at random")
    state_dropout: float = Field(ge=0, le=1, description="share of the utterances without the Thinker's states")
    apart: float = Field(
        ge=0, le=1, description="share of the pictures with several questions where no question sees those before it"
    )
    valid_answers: int = Field(ge=1, description="conversations of each task answered at each evaluation")


class OmniTask:
    """Conversations to answers, and answers to speech."""

    best_by = ""

    def __init__(
        self,
        cfg: OmniStageConfig,
        omni: Omni,
        alignments: Path,
        tokenizer: Tokenizer,
        conversations: Path,
        mels: Path,
        tokens: Path,
        seed: int,
        device: Device,
    ) -> None:
        self.cfg, self.omni, self.tokenizer, self.seed, self.device = cfg, omni, tokenizer, seed, device
        self.checkpointing = cfg.checkpointing
        self.cycle = math.lcm(cfg.talker_every or 1, cfg.text_every or 1)  # steps after which their kinds come again
        parts: dict[str, nn.Module] = {
            "thinker": omni.thinker,
            "vision_projector": omni.vision_projector,
            "places": omni.places,
            "audio_projector": omni.audio_projector,
            "vision_encoder": omni.vision_encoder,
            "audio_encoder": omni.audio_encoder,
            "talker": omni.talker,
            "codec": omni.codec,
            "vocoder": omni.vocoder,
        }
        still = ["codec", "vocoder"] + ["vision_encoder"] * cfg.freeze_vision + ["audio_encoder"] * cfg.freeze_audio
        still += ["talker"] * (cfg.talker_every == 0)
        self.frozen = {name: parts.pop(name) for name in still}
        self.modules = parts
        omni.to(device.device).eval()
        self.left_out = 0  # conversations longer than the context and recordings too short for their text
        self.features: dict[str, Tensor] = {}  # what frozen encoders make of each picture and recording
        self.splits = {name: Dialogues(conversations, name, omni.cfg.mel) for name in ("train", "valid")}
        self.train, self.valid = (self.prepare(self.splits[name]) for name in ("train", "valid"))
        if cfg.freeze_vision:  # their features are all that is needed from here on
            self.splits["train"].pictures.clear()
        if cfg.freeze_audio:
            self.splits["train"].mels.clear()
        weights = {task: float(weight) for task, weight in cfg.weights}
        unknown = {task for task, weight in weights.items() if weight} - {s.dialogue.task for s in self.train}
        if unknown:
            raise UserError(f"e_omni.weights: no conversation has the task '{sorted(unknown)[0]}'")
        self.mixture = Mixture(
            [s.dialogue.task for s in self.train], [len(s.ids) for s in self.train], weights, cfg.batch_size, seed
        )
        if cfg.text_every:
            if cfg.text_length > omni.cfg.thinker.context:
                raise UserError(
                    f"e_omni.text_length: {cfg.text_length} is more than thinker.context {omni.cfg.thinker.context}"
                )
            self.text = {split: TokenDataset(tokens, split) for split in ("train", "valid")}
        self.utterances: list[Utterance] = []
        if cfg.talker_every:
            voices = omni.cfg.talker.voices
            recordings = load_recordings(mels, "train", voices)
            self.utterances, short = aligned_utterances(alignments, recordings, voices, tokenizer)
            self.left_out += short
            self.buckets = Buckets([len(u.codes) for u in self.utterances], cfg.talker_batch, seed)

    @torch.no_grad()
    def prepare(self, dialogues: Dialogues) -> list[Sample]:
        """Lay out conversations; with frozen encoders, compute what they make of pictures and recordings."""
        if self.cfg.freeze_vision:
            names = [name for name in dialogues.pictures if name not in self.features]
            for at in range(0, len(names), 64):
                part = names[at : at + 64]
                pixels = torch.stack([dialogues.pictures[name] for name in part]).to(self.device.device).float() / 255
                with self.device.autocast():
                    states = self.omni.image_features(pixels)
                self.features.update(zip(part, states.float().cpu(), strict=True))
        if self.cfg.freeze_audio:
            # From the dict and not a set of its keys, whose order is another in each process: which recordings share a
            # batch, and so its padding, shows in the last bit.
            names = [name for name in dialogues.mels if name not in self.features]
            names.sort(key=lambda name: len(dialogues.mels[name]))
            for at in range(0, len(names), 32):
                part = names[at : at + 32]
                with self.device.autocast():
                    heard = self.hear([dialogues.mels[name] for name in part])
                # Copies: slices would keep the padding of their whole batch in memory.
                self.features.update((name, rows.float().cpu().clone()) for name, rows in zip(part, heard, strict=True))
        samples = []
        rng = random.Random(self.seed)
        for dialogue in dialogues.items:
            sizes = [
                self.omni.image_positions if name.endswith(".png") else -(-len(dialogues.mels[digest]) // 8)
                for name, digest in dialogue.media.items()
            ]
            # A generated question stands for itself; one of somebody's conversation may ask on.
            apart = dialogue.task != OWN and len(dialogue.messages) > 2 and rng.random() < self.cfg.apart
            sample = Sample(dialogue, self.tokenizer, sizes, apart)
            if len(sample.ids) <= self.omni.thinker.cfg.context:
                samples.append(sample)
            else:
                self.left_out += 1
        return samples

    def hear(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Log-mels ``[T, M]`` to encoder states ``[ceil(T / 8), Da]`` each."""
        lengths = torch.tensor([len(mel) for mel in mels], device=self.device.device)
        states, sizes = self.omni.audio_encoder(pad(list(mels)).to(self.device.device), lengths)
        return [row[:size] for row, size in zip(states, sizes.tolist(), strict=True)]

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Any]:
        """Conversations of similar length, and now and then utterances for the Talker and text for the Thinker."""
        number = self.cfg.number(step, micro)
        batch = self.collate([self.train[i] for i in self.mixture.at(number)], "train")
        if self.cfg.talker_every and step % self.cfg.talker_every == 0:
            turn = self.cfg.number(step // self.cfg.talker_every, micro)
            rows = [self.utterances[i] for i in self.buckets.at(turn)]
            speech = collate_utterances(rows, self.omni.talker.cfg.codes, self.cfg.code_noise, rng)
            # Half within the request to read them, half alone: the Talker must not mind what went before.
            prompts = [self.prompt(u.text) if bool(torch.rand((), generator=rng) < 0.5) else [] for u in rows]
            ids = [
                torch.tensor([*prompt, self.tokenizer.assistant, *u.ids, self.tokenizer.end])
                for prompt, u in zip(prompts, rows, strict=True)
            ]
            speech["ids"] = pad(ids, self.tokenizer.pad)
            speech["first"] = torch.tensor([len(prompt) + 1 for prompt in prompts])
            speech["keep"] = (torch.rand(len(rows), generator=rng) >= self.cfg.state_dropout).float()
            batch["speech"] = speech
        if self.cfg.text_every and step % self.cfg.text_every == 0:
            turn = self.cfg.number(step // self.cfg.text_every, micro)
            batch["text"] = self.text["train"].batch_at(turn, self.cfg.text_batch, self.cfg.text_length, self.seed)
        return batch

    def collate(self, samples: Sequence[Sample], split: str) -> dict[str, Any]:
        """Ids and targets ``[B, T]``, and the features or, where an encoder learns, the pictures and log-mels."""
        data = self.splits[split]
        pictures = [name for s in samples for name in s.pictures]
        recordings = [name for s in samples for name in s.recordings]
        batch: dict[str, Any] = {
            "ids": pad([s.ids for s in samples], self.tokenizer.pad),
            "targets": pad([s.targets for s in samples], -100),
        }
        if any(s.branches.any() for s in samples):
            batch["branches"] = pad([s.branches for s in samples])
        if pictures and self.cfg.freeze_vision:
            batch["images"] = torch.cat([self.features[name] for name in pictures])
        elif pictures:
            batch["pixels"] = torch.stack([data.pictures[name] for name in pictures])
        if recordings and self.cfg.freeze_audio:
            batch["audio"] = torch.cat([self.features[name] for name in recordings])
        elif recordings:
            batch["mels"] = [data.mels[name] for name in recordings]
        return batch

    def embed(self, batch: dict[str, Any]) -> Tensor:
        """Fused embeddings ``[B, T, D]`` of a batch."""
        images, audio = batch.get("images"), batch.get("audio")
        if "pixels" in batch:
            images = self.omni.image_features(batch["pixels"].float() / 255).flatten(0, 1)
        if "mels" in batch:
            audio = torch.cat(self.hear(batch["mels"]))
        return fuse(self.omni, batch["ids"], self.tokenizer, images, audio)

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy of the answers' tokens, of the next tokens of text, and the Talker's losses.

        Their sum, of those that the batch has samples for.
        """
        thinker = self.omni.thinker
        losses: list[Tensor] = []
        values: dict[str, float | Tensor] = {}
        if "ids" in batch:
            states = thinker(self.embed(batch), checkpointing=self.checkpointing, branches=batch.get("branches"))
            answer = thinker.loss(states, batch["targets"])
            losses.append(answer)
            values["answer_loss"] = answer.detach()
            values["padding"] = float((batch["ids"] == self.tokenizer.pad).float().mean())
            balance = thinker.balance_loss()
            if balance is not None:
                losses.append(balance)
        if "speech" in batch:
            speech = batch["speech"]
            spoken, talker_values = talker_loss(self.omni.talker, speech, self.text_states(speech), self.checkpointing)
            losses.append(spoken)
            values |= {f"talker_{name}": value for name, value in talker_values.items()}
        if "text" in batch:
            inputs, targets = batch["text"]
            read = thinker(thinker.embed(inputs), checkpointing=self.checkpointing)
            text = thinker.loss(read, targets)
            losses.append(text)
            values["text_loss"] = text.detach()
        return sum(losses[1:], losses[0]), values

    def split(self, batch: dict[str, Any], parts: int) -> list[tuple[dict[str, Any], float]]:
        """Fewer conversations at a time, and utterances and text by themselves.

        With experts their balance becomes the mean of the parts' by answers' tokens, near the whole's but not the same.
        """
        tokens = (self.tokenizer.image, self.tokenizer.audio)
        cut = split_conversations(batch, parts, *tokens, self.omni.image_positions, self.tokenizer.pad)
        if "speech" in batch:
            cut += [({"speech": part}, weight) for part, weight in split_utterances(batch["speech"], parts)]
        if "text" in batch:
            cut += [({"text": part}, weight) for part, weight in split_tokens(batch["text"], parts)]
        return cut

    @torch.no_grad()
    def text_states(self, speech: dict[str, Tensor]) -> Tensor:
        """The Thinker's states of each character's token; the Talker's loss does not reach into the Thinker."""
        h = self.omni.thinker(self.omni.thinker.embed(speech["ids"]))
        return gather_states(h, speech["first"], speech["tokens"]) * speech["keep"][:, None, None]

    def prompt(self, text: str) -> list[int]:
        """Token ids of the request to read a text aloud."""
        return [self.tokenizer.user, *self.tokenizer.encode(read_aloud(text)), self.tokenizer.end]

    def answer(self, sample: Sample, split: str, limit: int = 64) -> tuple[str, list[int], Tensor]:
        """The likeliest answer: its text, its token ids and the Thinker's states after each."""
        batch = self.collate([sample], split)
        batch = {
            key: value.to(self.device.device) if isinstance(value, Tensor) else value for key, value in batch.items()
        }
        x = self.embed(batch)[:, : sample.prompt]
        stop = {self.tokenizer.end}
        made = list(answer_tokens(self.omni.thinker, x, stop, limit, Sampling(), torch.Generator()))
        ids = [token for token, _ in made]
        return self.tokenizer.decode(ids), ids, torch.stack([state for _, state in made])

    def evaluate(self) -> dict[str, float]:
        """Loss, accuracy by task and the error rate of dictation on unseen conversations."""
        scores: dict[str, float] = {}
        losses = []
        for task in sorted({s.dialogue.task for s in self.valid}):
            mine = [s for s in self.valid if s.dialogue.task == task]
            batch = self.collate(mine[:32], "valid")
            batch = {
                key: value.to(self.device.device) if isinstance(value, Tensor) else value
                for key, value in batch.items()
            }
            states = self.omni.thinker(self.embed(batch))
            losses.append(float(self.omni.thinker.loss(states, batch["targets"])))
            scores[f"loss_{task}"] = losses[-1]
            if task == OWN:  # may be right in many words: only how likely they are tells
                continue
            rows = mine[: self.cfg.valid_answers]
            answers = [self.answer(s, "valid")[0] for s in rows]
            if task in ("dictation", "read_aloud"):
                said = [normalise(s.dialogue.answer) for s in rows]
                scores[f"cer_{task}"] = character_error_rate(said, [normalise(a) for a in answers])
            else:
                right = [s.dialogue.is_right(a) for s, a in zip(rows, answers, strict=True)]
                scores[f"accuracy_{task}"] = sum(right) / len(right)
        if self.cfg.text_every:
            inputs, targets = next(self.text["valid"].eval_windows(self.cfg.text_length))
            read = self.omni.thinker(self.omni.thinker.embed(inputs.to(self.device.device)))
            scores["loss_text"] = float(self.omni.thinker.loss(read, targets.to(self.device.device)))
        return {"loss": sum(losses) / len(losses), **scores, "left_out": float(self.left_out)}

    def samples(self, step: int, folder: Path) -> None:
        """One unseen conversation a task with its picture, the model's answer, and a spoken answer."""
        lines = []
        for task in sorted({s.dialogue.task for s in self.valid}):
            sample = next(s for s in self.valid if s.dialogue.task == task)
            text, _, _ = self.answer(sample, "valid")
            question = " ".join(
                part.get("text", f"[{part['type']}]") for part in sample.dialogue.messages[0]["content"]
            )
            cells = (task, question, sample.dialogue.answer, text)
            lines.append("\t".join(" ".join(cell.split()) for cell in cells) + "\n")
            for name in sample.pictures[:1]:
                from_pixels = self.splits["valid"].pictures[name]
                save_picture(from_pixels, folder / f"{task}.png")
        (folder / "answers.tsv").write_text("task\tquestion\twanted\tanswer\n" + "".join(lines), encoding="utf-8")
        spoken = next((s for s in self.valid if s.dialogue.task == "read_aloud"), self.valid[0])
        save_audio(folder / "answer.wav", self.speak(spoken), self.omni.cfg.mel.sample_rate)

    def speak(self, sample: Sample) -> Tensor:
        """The model's own answer to a conversation as a waveform ``[samples]``."""
        _, ids, states = self.answer(sample, "valid")
        characters, tokens = spell(self.tokenizer.decode(ids), self.tokenizer.char_spans(ids))
        rng = torch.Generator().manual_seed(0)
        device = states.device
        codes, _ = self.omni.talker.generate(
            torch.tensor(characters, device=device),
            states[torch.tensor(tokens, device=device)],
            rng,
        )
        return self.omni.vocoder(self.omni.codec.decode(codes[None])[0]).cpu()
