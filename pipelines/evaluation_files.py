"""What an evaluation leaves to look at and listen to: pictures for DVC's plots, sounds, and tables of all answers."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from muomni.data.dialogues import Dialogue
from muomni.data.files import read_json
from muomni.data.pictures import Picture
from muomni.data.shards import read_shards
from muomni.data.utterances import read_utterances
from muomni.evaluate.asking import Reply, question_of
from muomni.evaluate.listening import SIGNALS, Listened
from muomni.evaluate.measure import Figure, shown
from muomni.evaluate.plots import draw_bars, draw_curves, draw_mels, draw_sheet
from muomni.evaluate.sample_page import write_page
from muomni.evaluate.seeing import Seen
from muomni.evaluate.summary import find
from muomni.evaluate.whole import Answered
from muomni.media import save_audio

SHEET = 12  # pictures on a sheet
SENTENCES = 4  # of which each signal is kept as a sound
SENTENCES_SHOWN = 12  # on the page to listen with
PAGE = "speech.html"
SHOWN = ("name", "caption", "single", "scene", "spoken_scene")
PICTURES = {"name": 2, "caption": 2, "single": 2, "scene": 4}  # that are kept with question and answer, by task


@dataclass(frozen=True)
class Recorded:
    """A question as it was recorded.

    Attributes:
        sound: FLAC.
        words: what is said; empty if the corpus does not have it.
    """

    sound: bytes
    words: str


@dataclass(frozen=True)
class Evaluation:
    """All that was found.

    Attributes:
        scores: by file.
        summary: the headlines.
        seen: stage C's guesses.
        pictures: they are about.
        listened: codec and Talker.
        answered: the whole model.
        rate: samples a second of all sounds.
        recorded: spoken questions by the key of the conversation.
    """

    scores: Mapping[str, Any]
    summary: Mapping[str, Figure]
    seen: Seen
    pictures: Sequence[Picture]
    listened: Listened
    answered: Answered
    rate: int
    recorded: Mapping[str, Recorded]


def write_plots(result: Evaluation, curves: Path, folder: Path) -> None:
    """Draw all figures as PNG.

    Args:
        result: of the evaluation.
        curves: folder that holds a training's ``train.json`` and ``valid.json`` for each stage.
        folder: where to.
    """
    tasks = result.scores["omni"]["tasks"]
    accuracy = {name: scores["accuracy"] for name, scores in tasks.items()}
    blind = {name: scores["blind"] for name, scores in tasks.items() if "blind" in scores}
    draw_bars(folder / "accuracy.png", "Right answers of the whole model, by task", accuracy, blind, 1)
    if "scene" in tasks:
        draw_bars(folder / "scenes.png", "Right answers about scenes, by question", tasks["scene"]["kinds"], None, 1)
    errors = {
        "hearing, clear voice": find(result.scores, "hearing", "clear", "cer"),
        "hearing, other voices": find(result.scores, "hearing", "others", "cer"),
        "dictation, clear voice": find(result.scores, "omni", "written", "dictation", "clear", "cer"),
        **{f"judged: {name}": find(result.scores, "speech", "cer", name) for name in SIGNALS},
        "judged: reading aloud": find(result.scores, "omni", "speech", "read_aloud", "cer"),
    }
    draw_bars(folder / "errors.png", "Character error rates", {name: f for name, f in errors.items() if f is not None})
    draw_mels(folder / "speech.png", result.listened.texts[0], result.listened.mels)
    draw_sheet(folder / "answers.png", "Unseen pictures, questions and answers", list(answer_sheet(result.answered)))
    draw_sheet(folder / "names.png", "Names by stage C: mistakes first", list(name_sheet(result)))
    stages = sorted(path for path in curves.glob("*") if (path / "train.json").is_file())
    rows = {
        path.name: {kind: read_json(path / f"{kind}.json", path.name) for kind in ("train", "valid")} for path in stages
    }
    if rows:
        draw_curves(folder / "curves.png", rows)


def answer_sheet(answered: Answered) -> Iterable[tuple[Any, str, bool]]:
    """Pictures with questions and answers, a few of each task."""
    for task in SHOWN:
        rows = [(d, r) for d, r in answered.pairs if d.task == task]
        for dialogue, reply in rows[: 4 if task == "scene" else 2]:
            question = question_of(dialogue) or "(spoken question)"
            good = dialogue.is_right(reply.text)
            text = f"{question}\n{plain(reply.text)[:60]}" + (
                "" if good else f"\n(wanted: {', '.join(dialogue.targets)})"
            )
            yield pixels_of(dialogue, answered), text, good


def pixels_of(dialogue: Dialogue, answered: Answered) -> Tensor:
    """A conversation's picture, ``[3, S, S]`` uint8."""
    return answered.data.pictures[next(digest for name, digest in dialogue.media.items() if name.endswith(".png"))]


def name_sheet(result: Evaluation) -> Iterable[tuple[Any, str, bool]]:
    """Single pictures with their names as stage C gives them, wrong ones first."""
    rows = sorted(result.seen.singles, key=lambda row: row[0] == row[1])
    for wanted, given, number in rows[:SHEET]:
        text = given if given == wanted else f"{given} (wanted: {wanted})"
        yield result.pictures[number].pixels, text, given == wanted


def plain(text: str) -> str:
    """A text on one line, without control characters, of which a model may make some."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write tab-separated values."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(head)
        writer.writerows([plain(str(cell)) for cell in row] for row in rows)


def write_samples(result: Evaluation, folder: Path) -> None:
    """Write sounds, pictures and tables.

    Args:
        result: of the evaluation.
        folder: where to: ``speech.tsv``, ``speech.html`` and ``<signal>-<number>.wav``, ``spoken.tsv`` and
            ``spoken-<task>-<number>.wav`` with their pictures and recorded questions, ``pictures.tsv`` and
            ``picture-<task>-<number>.png``, ``answers.tsv``, ``confusions.tsv``.
    """
    listened, answered = result.listened, result.answered
    rows = []
    for signal in SIGNALS:
        heard = listened.heard.get(signal, [])
        for number, wave in enumerate(listened.waves[signal]):
            file = f"{signal}-{number}.wav" if number < SENTENCES else ""
            if file:
                save_audio(folder / file, wave, result.rate)
            rows.append((signal, file, listened.texts[number], heard[number] if heard else ""))
    write_table(folder / "speech.tsv", ("signal", "file", "text", "judged"), rows)
    cer = result.scores["speech"].get("cer", {})
    write_page(
        folder / PAGE,
        "Speech of unseen sentences",
        [(f"CER of {name}, judged", shown(figure)) for name, figure in cer.items()],
        listened.texts,
        {signal: waves[:SENTENCES_SHOWN] for signal, waves in listened.waves.items()},
        listened.heard,
        result.rate,
    )
    write_spoken(answered, result.recorded, result.rate, folder)
    write_pictures(answered, folder)
    write_table(
        folder / "answers.tsv",
        ("task", "kind", "right", "question", "wanted", "answer"),
        (answer_row(dialogue, reply) for dialogue, reply in answered.pairs),
    )
    wrong = Counter((wanted, given) for wanted, given, _ in result.seen.singles if wanted != given)
    ordered = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    write_table(folder / "confusions.tsv", ("wanted", "given", "times"), ((*pair, n) for pair, n in ordered))


def answer_row(dialogue: Dialogue, reply: Reply) -> tuple[object, ...]:
    """A line of ``answers.tsv``; texts to be copied out are not right or wrong as a whole."""
    right = "" if dialogue.task in ("dictation", "read_aloud") else int(dialogue.is_right(reply.text))
    return dialogue.task, dialogue.kind, right, question_of(dialogue), dialogue.answer, reply.text


def save_pixels(pixels: Tensor, path: Path) -> None:
    """Write ``[3, S, S]`` uint8 as PNG."""
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


def write_pictures(answered: Answered, folder: Path) -> None:
    """Write the first pictures of each task, and what was asked and answered about them."""
    rows = []
    for task, count in PICTURES.items():
        pairs = [(dialogue, reply) for dialogue, reply in answered.pairs if dialogue.task == task]
        for number, (dialogue, reply) in enumerate(pairs[:count]):
            file = f"picture-{task}-{number}.png"
            save_pixels(pixels_of(dialogue, answered), folder / file)
            right = int(dialogue.is_right(reply.text))
            rows.append((task, file, right, question_of(dialogue), dialogue.answer, reply.text))
    write_table(folder / "pictures.tsv", ("task", "file", "right", "question", "wanted", "answer"), rows)


def write_spoken(answered: Answered, recorded: Mapping[str, Recorded], rate: int, folder: Path) -> None:
    """Write some spoken answers, with the picture and the recorded question where there is one."""
    rows, kept = [], Counter[str]()
    for dialogue, reply, wave, heard in answered.spoken:
        kept[dialogue.task] += 1
        file, asked = "", recorded.get(dialogue.key)
        if kept[dialogue.task] <= SENTENCES:
            file = f"spoken-{dialogue.task}-{kept[dialogue.task] - 1}.wav"
            save_audio(folder / file, wave, rate)
            if any(name.endswith(".png") for name in dialogue.media):
                save_pixels(pixels_of(dialogue, answered), folder / file.replace(".wav", ".png"))
            if asked:
                (folder / file.replace(".wav", ".flac")).write_bytes(asked.sound)
        question = question_of(dialogue) or (asked.words if asked else "")
        rows.append((dialogue.task, file, question, dialogue.answer, reply.text, heard))
    write_table(folder / "spoken.tsv", ("task", "file", "question", "wanted", "answer", "judged"), rows)


def recorded_questions(answered: Answered, shards: Path, corpus: Path) -> dict[str, Recorded]:
    """The recordings of the spoken questions, by the key of the conversation; the model heard nothing else of them.

    Args:
        answered: the conversations whose answers were spoken.
        shards: of conversations.
        corpus: of speech, which knows the words.

    Raises:
        UserError: if something is missing or damaged.
    """
    # A sample of reading aloud has a recording too: of the answer, which is not asked with.
    asked = {d.key: [name for name in d.media if name.endswith(".flac")] for d, *_ in answered.spoken}
    words = {row["id"]: row["text"] for row in read_utterances(corpus)}
    found = {}
    for sample in read_shards(shards, "test"):
        names = asked.get(sample["__key__"])
        if names:
            found[sample["__key__"]] = Recorded(sample[names[-1]], words.get(sample["json"].get("utterance", ""), ""))
    return found
