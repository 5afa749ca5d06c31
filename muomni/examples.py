"""``muomni examples``: questions of the test split with their pictures and recordings as files, to ask a model.

No training saw them. Pictures that a person has at hand say little about a model that learned from drawings.
"""

import argparse
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muomni.options import Parser, add_seed, number

SHARDS = "data/shards/conversations"


@dataclass(frozen=True)
class Example:
    """A question.

    Attributes:
        task: such as ``scene``.
        answer: a right one, in the data's words.
        command: that asks the question.
        utterance: id of the recording in the speech corpus, if there is one.
    """

    task: str
    answer: str
    command: str
    utterance: str = ""


def add_examples(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add the command and its options."""
    examples = commands.add_parser(
        "examples",
        help="questions that no training saw, their pictures and recordings as files, and the commands that ask them",
    )
    examples.add_argument("folder", nargs="?", default=SHARDS, metavar="SHARDS", help="default: %(default)s")
    examples.add_argument(
        "--task", action="append", metavar="NAME", help="such as scene; may be repeated (default: all)"
    )
    examples.add_argument(
        "--count", type=number(int, 1, 1000), default=1, metavar="N", help="questions of each task (default: 1)"
    )
    examples.add_argument("--out", default="examples", metavar="FOLDER", help="for the files (default: %(default)s)")
    add_seed(examples)
    examples.set_defaults(handler=run_examples)


def run_examples(args: argparse.Namespace) -> int:
    """Run ``muomni examples``."""
    found = write_examples(Path(args.folder), Path(args.out), args.count, args.task or (), args.seed)
    words = spoken_words(Path(args.folder).parents[1] / "corpus" / "speech") if args.folder == SHARDS else {}
    for example in found:
        asked = words.get(example.utterance, "") if example.task.startswith("spoken") else ""
        print(f"{example.task}: " + (f'asked aloud is "{asked}", ' if asked else "") + f'right is "{example.answer}"')
        print(f"  {example.command}")
    return 0


def spoken_words(corpus: Path) -> dict[str, str]:
    """What is said in each recording of the speech corpus, by id; nothing where there is no corpus."""
    from muomni.data.utterances import UTTERANCES, read_utterances

    return {row["id"]: row["text"] for row in read_utterances(corpus)} if (corpus / UTTERANCES).is_file() else {}


def write_examples(shards: Path, out: Path, count: int, tasks: Sequence[str] = (), seed: int = 0) -> list[Example]:
    """Write pictures and recordings of test questions.

    Args:
        shards: the conversation shards.
        out: where to, as ``<task>-<number>.png`` and ``.flac``.
        count: questions of each task at most. Conversations of several questions are passed over.
        tasks: which ones; all if there are none.
        seed: draws the questions.

    Returns:
        The questions, by task in the order of the shards.

    Raises:
        UserError: if the shards are missing or damaged, or have no such task.
    """
    from muomni.config import near
    from muomni.data.shards import read_shards
    from muomni.errors import UserError

    by_task: dict[str, list[dict[str, Any]]] = {}
    for sample in read_shards(shards, "test"):
        if len(sample["json"]["messages"]) == 2:
            by_task.setdefault(sample["json"]["task"], []).append(sample)
    for task in tasks:
        if task not in by_task:
            raise UserError(f"{task}: no test question has this task{near(task, sorted(by_task))}")
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for task in tasks or by_task:
        samples = random.Random(f"{seed}:{task}").sample(by_task[task], min(count, len(by_task[task])))
        found += [written(sample, out / f"{task}-{n}") for n, sample in enumerate(samples)]
    return found


def written(sample: dict[str, Any], stem: Path) -> Example:
    """Write what a question shows and plays, and make the command that asks it."""
    task, (question, answer) = sample["json"]["task"], sample["json"]["messages"]
    right = "".join(part["text"] for part in answer["content"])
    words, files = list[str](), dict[str, list[str]]()
    for part in question["content"]:
        if part["type"] == "text":
            words.append(part["text"])
            continue
        number = len(files.get(part["type"], []))
        path = stem.with_name(f"{stem.name}{f'-{number}' if number else ''}{Path(part['member']).suffix}")
        path.write_bytes(sample[part["member"]])
        files.setdefault(part["type"], []).append(str(path))
    said = str(stem.with_suffix(".wav"))
    if task == "dictation":
        return Example(task, right, shlex.join(["muomni", "transcribe", *files["audio"]]))
    if task == "read_aloud":
        return Example(task, right, shlex.join(["muomni", "say", right, "--audio-out", said]))
    asked = ["muomni", "chat"]
    for kind, option in (("image", "--image"), ("audio", "--audio-in")):
        for file in files.get(kind, []):
            asked += [option, file]
    asked += ["--text", " ".join(words)] if words else []
    asked += ["--audio-out", said] if answer.get("speech") else []
    return Example(task, right, shlex.join(asked), sample["json"].get("utterance", ""))
