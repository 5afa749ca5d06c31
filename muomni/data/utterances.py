"""What a recording of the speech corpus is, and reading what stage corpus-speech wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muomni.data.files import read_jsonl
from muomni.data.shard_format import SPLITS
from muomni.errors import UserError

STAGE = "corpus-speech"
UTTERANCES = "utterances.jsonl"
COLUMNS = {"id", "split", "text", "speaker", "kind", "key", "seconds", "file"}


@dataclass(frozen=True)
class Utterance:
    """One recording to make or to read.

    Attributes:
        id: names its file.
        split: train, valid or test.
        text: what is said.
        speaker: ``hibari``, ``espeak:<voice>``, or as your metadata says.
        kind: the family of sentences it comes from; ``own`` for your recordings.
        key: what it is about; all utterances of one key are in one split.
        pace: a factor for hibari, words a minute for eSpeak NG.
        source: of your own recordings, the file.
    """

    id: str
    split: str
    text: str
    speaker: str
    kind: str
    key: str
    pace: float
    source: str

    @property
    def file(self) -> str:
        """Where its recording is, relative to the corpus."""
        return f"audio/{self.split}/{self.id}.flac"


def read_utterances(corpus: str | Path) -> list[dict[str, Any]]:
    """Rows of ``utterances.jsonl``, with the columns `COLUMNS`.

    Raises:
        UserError: if the corpus is missing or damaged.
    """
    path = Path(corpus) / UTTERANCES
    rows = list(read_jsonl(path, STAGE))
    for number, row in enumerate(rows, 1):
        if not row.keys() >= COLUMNS or row["split"] not in SPLITS:
            raise UserError(f"{path}:{number}: not an utterance; run `dvc repro --force {STAGE}`")
    return rows


def read_recording(corpus: str | Path, row: dict[str, Any]) -> bytes:
    """The FLAC bytes of an utterance.

    Raises:
        UserError: if the file is missing.
    """
    path = Path(corpus) / row["file"]
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run `dvc repro --force {STAGE}`") from None
