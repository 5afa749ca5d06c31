"""Conversations that somebody brings: folders of JSON lines in the chat format (`muomni.data.chat_format`).

Which split a conversation is in follows from a hash of what the user says, shows and plays in it: the same questions
are in one split, whatever the answers.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from muomni.data.badsamples import BadSamples
from muomni.data.chat_format import Fitting, Line, OwnConversation, read_lines
from muomni.data.folders import Folder
from muomni.data.mixtures import Origin, Part, read_mixture, times
from muomni.data.own_pictures import CAPTIONED_SHARES
from muomni.data.processes import executor, map_lists, where
from muomni.data.splits import split_of
from muomni.errors import UserError

SUFFIXES = (".jsonl", ".ndjson")
LONGEST_LINE = 1_000_000  # bytes
CHUNK = 32  # lines that a worker reads at a time, of a megabyte each at most
WORTH_A_WORKER = 500  # lines: for fewer the start of a process takes longer than it saves


class ConversationPart(Part):
    """A source of conversations in a mixture."""

    source: Literal["jsonl"]


def read_conversations(
    source: str,
    address: str,
    fitting: Fitting,
    seed: int,
    bad: BadSamples,
    workers: int | None = None,
    weighed: bool = True,
) -> tuple[list[OwnConversation], list[Origin]]:
    """All usable conversations in the order of the lines, those for training as often as their source weighs.

    Args:
        source: ``jsonl`` or ``mixture``.
        address: of the folder, or of the mixture's file.
        fitting: how media are made.
        seed: the project's; decides the splits, and which conversations a weight's fraction repeats.
        bad: takes the lines that cannot be used, each with the first reason.
        workers: processes; by default as many as there are processors and lines for. They change no byte.
        weighed: False for each of them once, whatever its source weighs.

    Raises:
        UserError: if a folder is missing or has no such file.
    """
    parts = [ConversationPart(source="jsonl", path=address)] if source == "jsonl" else []
    found: list[OwnConversation] = []
    origins = []
    for part in parts or read_mixture(address, ConversationPart, "conversations.path"):
        before, origin = len(bad), Origin(part.name or part.source, part.source, "", part.licence, part.weight)
        bad.within = f"{part.name}/" if part.name else ""
        mine = [
            replace(c, split=split_of(c.key, seed, *CAPTIONED_SHARES))
            for c in _read(part, fitting, bad, origin, workers)
        ]
        often = times([item.id for item in mine if item.split == "train"], part.weight if weighed else 1, seed)
        for item in mine:
            found += [item] * (often.get(item.id, 1) > 0)
            found += [replace(item, id=f"{item.id}#{n}") for n in range(2, often.get(item.id, 1) + 1)]
        origin.items, origin.bad = len(mine), len(bad) - before
        origins.append(origin)
    bad.within = ""
    return found, origins


def state_of_conversations(address: str, origin: Origin) -> tuple[Folder, list[str]]:
    """A folder and its files of lines; `origin` takes the state of all of its files, the media among them.

    Raises:
        UserError: if there is no such folder, or no such file in it.
    """
    folder = Folder(address, "conversations.path")
    names = folder.files()
    lines = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not lines:
        raise UserError(f"conversations.path: {folder.address} holds no .jsonl file")
    origin.saw(folder, names)
    return folder, lines


def _read(
    part: ConversationPart, fitting: Fitting, bad: BadSamples, origin: Origin, workers: int | None
) -> list[OwnConversation]:
    """The conversations of a source; a line that kills its worker is set aside as well."""
    folder, names = state_of_conversations(part.path, origin)
    lines = list(_lines(folder, names, bad))
    chunks = [lines[at : at + CHUNK] for at in range(0, len(lines), CHUNK)]
    workers = workers or max(1, min(os.cpu_count() or 1, len(lines) // WORTH_A_WORKER))
    address, found = where(part.path), []
    with executor(workers) as pool:
        results = map_lists(pool, read_lines, chunks, address, fitting, bad.within, needs=[address])
        for chunk, read in zip(chunks, results, strict=True):
            for (item, _), made in zip(chunk, read, strict=True):
                if isinstance(made, str):
                    bad.add(item, made)
                else:
                    found.append(made)
    return found


def _lines(folder: Folder, names: Sequence[str], bad: BadSamples) -> Iterator[Line]:
    """Lines of all files; what cannot be read any further is set aside."""
    for name in names:
        try:
            with folder.open(name) as file:
                for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
                    item = f"{name}:{number}"
                    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                        bad.add(item, f"a line of {LONGEST_LINE:,} bytes; the rest of the file is left out")
                        break
                    if line.strip():
                        yield item, line
        except ValueError as error:
            bad.add(name, str(error))
