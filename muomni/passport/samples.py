"""What one can see and hear of a model, from the samples that its evaluation left."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from muomni.errors import UserError
from muomni.passport.blocks import Block, Drawings, Media, Part, Table

SPOKEN = 2  # answers of each task that are shown and played
SENTENCES = 2  # that are played as recorded, after the codec, and as the Talker says them
SIGNALS = {"recording": "the recording", "codec": "through the codec", "talker": "said by the Talker"}
ANSWERS = 2  # of each task, right and wrong
PLOTS = {"answers.png": "Unseen pictures, questions and answers", "accuracy.png": "Right answers by task"}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table that stage evaluate wrote; none if it is not there.

    Raises:
        UserError: if it is no such table.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no table ({error}); run `dvc repro --force evaluate`") from None
    return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in rows]


def file_bytes(folder: Path, name: str) -> bytes:
    """A file in the folder itself; empty if there is none."""
    path = folder / Path(name).name
    return path.read_bytes() if name and path.is_file() else b""


def samples(folder: Path | None, plots: Path) -> list[Part]:
    """The parts of a page with pictures and players; of what is not there none.

    Args:
        folder: ``metrics/samples``.
        plots: ``plots``.
    """
    if folder is None:
        return []
    found = [
        Part("Spoken answers", list(spoken(folder))),
        Part("Speech of unseen sentences", list(sentences(folder))),
        Part("Answers", list(answers(folder, plots))),
    ]
    return [part for part in found if part.blocks]


def spoken(folder: Path) -> Iterator[Block]:
    """Answers that were spoken, with the picture they are about."""
    kept = Counter[str]()
    for row in read_table(folder / "spoken.tsv"):
        sound = file_bytes(folder, row.get("file", ""))
        kept[row["task"]] += bool(sound)
        if not sound or kept[row["task"]] > SPOKEN:
            continue
        asked = row["question"] or "(a spoken question)"
        caption = f"{asked} Answer: {row['answer']}" + (f" (heard: {row['judged']})" if row["judged"] else "")
        wanted = "" if row["answer"] == row["wanted"] else f" (wanted: {row['wanted']})"
        yield Media(caption + wanted, file_bytes(folder, row["file"].replace(".wav", ".png")), sound)


def sentences(folder: Path) -> Iterator[Block]:
    """Sentences as recorded, after the codec, and said by the Talker."""
    for signal, told in SIGNALS.items():
        rows = [row for row in read_table(folder / "speech.tsv") if row["signal"] == signal][:SENTENCES]
        for row in rows:
            sound = file_bytes(folder, row["file"])
            if sound:
                yield Media(f"{told}: {row['text']}", sound=sound)


def answers(folder: Path, plots: Path) -> Iterator[Block]:
    """Right and wrong answers of each task, and the evaluation's pictures."""
    rows = read_table(folder / "answers.tsv")
    shown = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        wrong = [row for row in mine if row["right"] == "0" or (not row["right"] and row["wanted"] != row["answer"])]
        right = [row for row in mine if row not in wrong]
        for some, mark in ((right, "right"), (wrong, "wrong")):
            shown += [
                [task, row["question"] or "(spoken)", row["wanted"], row["answer"], mark] for row in some[:ANSWERS]
            ]
    if shown:
        yield Table(["Task", "Question", "Wanted", "Answer", ""], shown)
    pictures = {title: file_bytes(plots, name) for name, title in PLOTS.items()}
    if any(pictures.values()):
        yield Drawings({title: picture for title, picture in pictures.items() if picture})
