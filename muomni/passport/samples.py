"""What one can see and hear of a model, from the samples that its evaluation left."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from muomni.errors import UserError
from muomni.passport.blocks import Block, Drawings, Example, Part, Table
from muomni.passport.limits import named

SPOKEN = 2  # answers of each task that are shown and played
SENTENCES = 2  # that are played as recorded, after the codec, and as the Talker says them
SIGNALS = {"recording": "recorded", "codec": "through the codec", "talker": "said by the Talker"}
ANSWERS = 2  # of each task, right and wrong
COLUMNS = {
    "pictures.tsv": ("task", "file", "right", "question", "wanted", "answer"),
    "spoken.tsv": ("task", "file", "question", "wanted", "answer", "judged"),
    "speech.tsv": ("signal", "file", "text", "judged"),
    "answers.tsv": ("task", "right", "question", "wanted", "answer"),
}
PLOTS = {"accuracy.png": "Right answers by task"}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table that stage evaluate wrote, with its `COLUMNS`; none if it is not there.

    Raises:
        UserError: if it is no such table.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no table ({error}); run `dvc repro --force evaluate`") from None
    if missing := [name for name in COLUMNS[path.name] if found and name not in found[0]]:
        raise UserError(f"{path}: has no column '{missing[0]}'; run `dvc repro --force evaluate`")
    return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in found]


def file_bytes(folder: Path, name: str) -> bytes:
    """A file in the folder itself; empty if there is none."""
    path = folder / Path(name).name
    return path.read_bytes() if name and path.is_file() else b""


def rows(folder: Path | None) -> dict[str, list[dict[str, str]]]:
    """The examples as values: pictures with questions and answers, spoken answers; files are those in the folder.

    Args:
        folder: ``metrics/samples``; without it there are none.

    Raises:
        UserError: if a table is damaged.
    """
    if folder is None:
        return {}
    found = {name: read_table(folder / f"{name}.tsv") for name in ("pictures", "spoken")}
    return {name: [row for row in some if row.get("file")] for name, some in found.items()}


def samples(folder: Path | None, plots: Path) -> list[Part]:
    """The parts of a card with pictures and players; of what is not there none.

    Args:
        folder: ``metrics/samples``.
        plots: ``plots``.

    Raises:
        UserError: if a table is damaged.
    """
    if folder is None:
        return []
    found = [
        Part("Pictures, questions and answers", list(seen(folder))),
        Part("Spoken answers", list(spoken(folder))),
        Part("Speech of unseen sentences", list(sentences(folder))),
        Part("Right and wrong answers", list(answers(folder, plots))),
    ]
    return [part for part in found if part.blocks]


def words(row: dict[str, str], right: bool) -> dict[str, str]:
    """Question, answer, what a recogniser heard of it, and the wanted one if it is another."""
    told = {"question": row["question"] or "(spoken)", "answer": row["answer"] or "(nothing)"}
    if row.get("judged"):
        told["a recogniser heard"] = row["judged"]
    return told if right else told | {"wanted": row["wanted"]}


def seen(folder: Path) -> Iterator[Block]:
    """Pictures that no training had, with a question and the answer."""
    for row in read_table(folder / "pictures.tsv"):
        if picture := file_bytes(folder, row["file"]):
            yield Example(words(row, row["right"] == "1"), picture)


def spoken(folder: Path) -> Iterator[Block]:
    """Answers that were spoken, with the picture they are about, and the question if that was spoken too."""
    kept = Counter[str]()
    for row in read_table(folder / "spoken.tsv"):
        answer = file_bytes(folder, row.get("file", ""))
        kept[row["task"]] += bool(answer)
        if not answer or kept[row["task"]] > SPOKEN:
            continue
        picture, asked = (file_bytes(folder, row["file"].replace(".wav", ending)) for ending in (".png", ".flac"))
        sounds = {"the question": asked} if asked else {}
        yield Example(words(row, row["answer"] == row["wanted"]), picture, sounds | {"the answer": answer})


def sentences(folder: Path) -> Iterator[Block]:
    """Sentences as recorded, after the codec, and said by the Talker."""
    found: dict[str, dict[str, bytes]] = {}
    heard: dict[str, str] = {}
    for row in read_table(folder / "speech.tsv"):
        sound = file_bytes(folder, row["file"])
        if sound and row["signal"] in SIGNALS:
            found.setdefault(row["text"], {})[SIGNALS[row["signal"]]] = sound
            heard |= {row["text"]: row["judged"]} if row["signal"] == "talker" and row["judged"] else {}
    for text, sounds in list(found.items())[:SENTENCES]:
        told = {"a recogniser heard of the Talker": heard[text]} if text in heard else {}
        yield Example({"sentence": text} | told, sounds=sounds)


def answers(folder: Path, plots: Path) -> Iterator[Block]:
    """Right and wrong answers of each task, and how many are right."""
    table = read_table(folder / "answers.tsv")
    shown = []
    for task in dict.fromkeys(row["task"] for row in table):
        mine = [row for row in table if row["task"] == task]
        wrong = [row for row in mine if row["right"] == "0" or (not row["right"] and row["wanted"] != row["answer"])]
        right = [row for row in mine if row not in wrong]
        for some, mark in ((right, "right"), (wrong, "wrong")):
            cells = ([r["question"] or "(spoken)", r["wanted"], r["answer"]] for r in some[:ANSWERS])
            shown += [[named(task), *cell, mark] for cell in cells]
    if shown:
        yield Table(["Task", "Question", "Wanted", "Answer", ""], shown)
    pictures = {title: file_bytes(plots, name) for name, title in PLOTS.items()}
    if any(pictures.values()):
        yield Drawings({title: picture for title, picture in pictures.items() if picture})
