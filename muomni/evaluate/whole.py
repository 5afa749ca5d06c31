"""The whole model asked about the test conversations: answers, what they would be blind, reading aloud, swap tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.data.dialogues import Dialogue, Dialogues
from muomni.data.shards import read_shards
from muomni.evaluate.answering import OWN, score_answers, score_written
from muomni.evaluate.asking import Asker, Reply
from muomni.evaluate.blind import Asked, Blind
from muomni.evaluate.config import EvaluateConfig, first
from muomni.evaluate.judge import Judge, listening
from muomni.evaluate.measure import mean
from muomni.evaluate.own import score_own
from muomni.evaluate.parts import Parts
from muomni.evaluate.speech import judged
from muomni.evaluate.swaps import swap_pictures, swap_questions, swap_recordings, verdict
from muomni.speech import speak

SPOKEN = ("spoken_scene", "spoken_world")


@dataclass
class Answered:
    """What was scored, and what to look at and listen to.

    Attributes:
        scores: for ``metrics/omni.json``.
        data: the test conversations.
        pairs: those that were asked, with the answers.
        spoken: conversations of reading aloud and spoken questions with their answer's speech, and the transcript.
    """

    scores: dict[str, Any]
    data: Dialogues
    pairs: list[tuple[Dialogue, Reply]]
    spoken: list[tuple[Dialogue, Reply, Tensor, str]] = field(default_factory=list)


def training_questions(shards: Path) -> list[Asked]:
    """What the training conversations ask, for the blind baseline."""
    asked = []
    for sample in read_shards(shards, "train"):
        about = sample["json"]
        question = " ".join(p["text"] for p in about["messages"][0]["content"] if p["type"] == "text")
        asked.append(Asked(about["task"], about["kind"], question, tuple(about["targets"])))
        asked += [
            Asked(about["task"], qa["kind"], qa["question"], tuple(qa["targets"])) for qa in about.get("more", [])
        ]
    return asked


def chosen(items: Sequence[Dialogue], cfg: EvaluateConfig) -> list[Dialogue]:
    """The first conversations of each task; the shards hold them in random order."""
    limits = {"dictation": cfg.dictation, "read_aloud": cfg.read_aloud}
    tasks = sorted({d.task for d in items})
    return [
        d for task in tasks for d in first([d for d in items if d.task == task], limits.get(task, cfg.answers_per_task))
    ]


def answer_all(parts: Parts, cfg: EvaluateConfig, judge: Judge | None, shards: Path) -> Answered:
    """Ask the whole model, and score what it answers.

    Args:
        parts: all trained parts; the whole model is used.
        cfg: the section.
        judge: the recogniser, or None.
        shards: the conversation shards.

    Raises:
        UserError: if data is missing.
    """
    data = Dialogues(shards, "test", parts.omni.cfg.mel)
    asker = Asker(parts.omni, parts.tokenizer, data, cfg.answer_tokens)
    dialogues = chosen(data.items, cfg)
    pairs = list(zip(dialogues, asker.ask(dialogues), strict=True))
    blind = Blind(training_questions(shards))
    found = Answered({}, data, pairs)
    found.scores = {"tasks": score_answers(pairs, blind), "written": score_written(pairs, cfg.speaker, cfg.seed)}
    accuracies = [task["accuracy"]["value"] for task in found.scores["tasks"].values()]
    if accuracies:
        found.scores["accuracy"] = mean(accuracies, cfg.seed)
    if own := score_own(asker, [d for d in dialogues if d.task == OWN], cfg.seed):
        found.scores[OWN] = own
    found.spoken = spoken_answers(parts, cfg, judge, asker, pairs)
    for task in ("read_aloud", *SPOKEN):
        mine = [(d, r, heard) for d, r, _, heard in found.spoken if d.task == task]
        wanted = [d.answer if task == "read_aloud" else r.text for d, r, _ in mine]
        if judge and any(normalise(text) for text in wanted):
            figure = judged(wanted, [heard for *_, heard in mine], cfg.seed)
            found.scores.setdefault("speech", {})[task] = {"cer": figure}
    found.scores["swaps"] = {
        "picture_name": verdict("picture_name", swap_pictures(asker, data.items, "name", cfg.swap_pairs)),
        "picture_scene": verdict("picture_scene", swap_pictures(asker, data.items, "scene", cfg.swap_pairs)),
        "question": verdict("question", swap_questions(asker, data.items, cfg.swap_pairs)),
        "audio": verdict("audio", swap_recordings(asker, data.items, cfg.swap_pairs)),
    }
    return found


def spoken_answers(
    parts: Parts,
    cfg: EvaluateConfig,
    judge: Judge | None,
    asker: Asker,
    pairs: Sequence[tuple[Dialogue, Reply]],
) -> list[tuple[Dialogue, Reply, Tensor, str]]:
    """Speech of the answers of reading aloud, and of a few spoken questions to listen to.

    Args:
        parts: the model and its tokenizer.
        cfg: the section.
        judge: the recogniser, or None.
        asker: that gave the replies.
        pairs: conversations and replies of all tasks.

    Returns:
        Conversation, reply, float32 ``[samples]``, and what the judge heard; half a second of silence for a reply
        without a word, and an empty transcript for it or without a judge.
    """
    reading = [pair for pair in pairs if pair[0].task == "read_aloud"]
    asked = [pair for task in SPOKEN for pair in [p for p in pairs if p[0].task == task][: cfg.spoken_answers]]
    found = []
    with listening(judge) as hear:
        for dialogue, reply in (*reading, *asked):
            waves: list[Tensor] = []
            if reply.ids:
                states = asker.states(dialogue, reply.ids)
                rng = torch.Generator().manual_seed(cfg.seed)
                said = speak(parts.omni, parts.tokenizer, reply.ids, states, rng)
                waves = [sentence.wave for sentence in said]
            wave = torch.cat(waves) if waves else torch.zeros(parts.omni.cfg.mel.sample_rate // 2)
            found.append((dialogue, reply, wave, hear(wave) if waves else None))
    return [(dialogue, reply, wave, heard.result() if heard else "") for dialogue, reply, wave, heard in found]
