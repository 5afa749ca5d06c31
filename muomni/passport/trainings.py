"""What a training logged, read again: its curves, and the samples of each evaluation.

Two forms are read: ``metrics/train/<stage>`` of a training that has ended, and the state folder of one under way.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muomni.errors import UserError
from muomni.train.report import read_metrics

SAMPLES = "samples"
MOST_FILE = 4_000_000  # bytes of a sample that is shown
MOST_LINES = 1000
SPOKEN = "texts.tsv"
SOUNDS = {  # what a file's name means
    "codec": "a recording, after codec and vocoder",
    "vocoder": "the same, after the vocoder alone",
    "answer": "the answer to the task read aloud, spoken",
}
Row = dict[str, Any]
About = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """One thing at each evaluation.

    Attributes:
        about: what it is, by what that is called: the sentence that is said, the question and the answer wanted.
        picture: PNG that it is about; empty without one.
        texts: by step, what the model wrote.
        sounds: by step, WAV that the model made.
    """

    about: About
    picture: bytes = b""
    texts: dict[int, str] = field(default_factory=dict)
    sounds: dict[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """A stage's training.

    Attributes:
        name: of the stage.
        train: rows with ``step`` and what was measured while it trained.
        valid: rows with ``step`` and what its evaluations found, as ``valid_<name>``.
        steps: of the evaluations that left samples.
        samples: in the order in which the last evaluation has them.
    """

    name: str
    train: list[Row]
    valid: list[Row]
    steps: list[int]
    samples: list[Sample]


def read_trainings(roots: Sequence[Path]) -> list[Training]:
    """All trainings below some folders, by name; of two of the same name the one in the later folder counts.

    Args:
        roots: such as ``metrics/train`` and ``.muomni/state``.

    Raises:
        UserError: if there is none.
    """
    folders = {
        path.name: path
        for root in roots
        for path in sorted(root.glob("[!.]*"))
        if (path / "metrics.jsonl").is_file() or (path / "train.json").is_file()
    }
    found = [read_training(path) for _, path in sorted(folders.items())]
    found = [one for one in found if one.train or one.steps]
    if not found:
        raise UserError(f"{', '.join(map(str, roots))}: no training has logged anything there; run `dvc repro` first")
    return found


def read_training(folder: Path) -> Training:
    """A stage's training.

    Raises:
        UserError: if a file is damaged.
    """
    if (folder / "metrics.jsonl").is_file():
        rows: list[Row] = read_metrics(folder / "metrics.jsonl")
        train, valid = rows, [row for row in rows if any(key.startswith("valid_") for key in row)]
    else:
        train, valid = (read_rows(folder / f"{kind}.json") for kind in ("train", "valid"))
    steps = evaluations(folder / SAMPLES)
    return Training(folder.name, train, valid, sorted(steps), read_samples(steps))


def read_rows(path: Path) -> list[Row]:
    """A list of rows with steps.

    Raises:
        UserError: if it is none.
    """
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [row for row in rows if isinstance(row["step"], int)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{path}: holds no curve; run `dvc repro --force {path.parent.name}`") from None


def evaluations(folder: Path) -> dict[int, Path]:
    """The folders of samples by step."""
    found = {path: re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*")}
    return {int(match[1]): path for path, match in found.items() if match and path.is_dir()}


def read_samples(steps: dict[int, Path]) -> list[Sample]:
    """What the evaluations left, the same thing of all of them together.

    A table's last column is what the model wrote, and its other columns say of what; a line of a text is how a fixed
    beginning went on; ``texts.tsv`` says what is spoken in which file.
    """
    found: dict[str, Sample] = {}
    for step in sorted(steps, reverse=True):  # the last evaluation says what there is, and in which order
        folder = steps[step]
        spoken = captions(folder / SPOKEN)
        for name, about, text in texts(folder):
            picture = picture_of(folder, about)
            told = {key: value for key, value in about.items() if not re.fullmatch(rf"{re.escape(key)}-\d+", value)}
            found.setdefault(name, Sample(told or about, picture)).texts[step] = text
        for path in sorted(folder.glob("*.wav")):
            if path.stat().st_size <= MOST_FILE:
                about = (
                    {"said": spoken[path.name]} if path.name in spoken else {"sound": SOUNDS.get(path.stem, path.stem)}
                )
                found.setdefault(path.name, Sample(about)).sounds[step] = path
    return list(found.values())


def captions(path: Path) -> dict[str, str]:
    """What is said in each file, by its name: lines of file, voice and sentence."""
    cells = [line.split("\t") for line in lines(path)]
    return {cell[0]: f"{cell[2]} ({cell[1]})" for cell in cells if len(cell) == 3}


def lines(path: Path) -> list[str]:
    """The lines of a text; none of a file that is not there."""
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:MOST_LINES] if path.is_file() else []


def texts(folder: Path) -> Iterator[tuple[str, About, str]]:
    """A name, what it is about, and what the model wrote, of each row of the tables and each line of the texts.

    Not read as CSV: trainings write what a model makes as it is, with quotes in it.
    """
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(filter(None, lines(path)), 1):
            yield f"{path.name}\t{number}", {path.stem: str(number)}, line
    for path in sorted(folder.glob("*.tsv")):
        seen = Counter[str]()  # two rows may be about the same
        for cells, about in table(lines(path)) if path.name != SPOKEN else ():
            name = "\t".join((path.name, *cells[:-1]))
            seen[name] += 1
            yield f"{name}\t{seen[name]}", about, cells[-1]


def table(rows: list[str]) -> Iterator[tuple[list[str], About]]:
    """The cells of each row, and what it is about by the head's names.

    The last cell is what a model wrote, which may hold tabulators and ends of lines: cells too many belong to it, and
    so does a line of too few.
    """
    head = rows[0].split("\t") if rows else []
    found: list[list[str]] = []
    for row in rows[1:]:
        cells = row.split("\t", len(head) - 1)
        if len(cells) == len(head):
            found.append(cells)
        elif found and row.strip():
            found[-1][-1] += f" {row}"
    for cells in found:
        yield cells, {key: value for key, value in zip(head[:-1], cells, strict=False) if value}


def picture_of(folder: Path, about: About) -> bytes:
    """The picture that a row is about: the file of the name in its first column."""
    first = Path(next(iter(about.values()), "")).name
    path = folder / f"{first}.png"
    return path.read_bytes() if first and path.is_file() and path.stat().st_size <= MOST_FILE else b""
