"""Tables of recordings: lines, and rows with columns of CSV, TSV and JSON lines. What is wrong is set aside."""

import csv
import itertools
import json
from collections.abc import Iterator
from typing import Any

from muomni.data.badsamples import BadSamples
from muomni.data.speech_files import SpeechFolder
from muomni.errors import UserError


def lines_of(folder: SpeechFolder, name: str, bad: BadSamples) -> Iterator[tuple[int, str]]:
    """Lines of a table that are not empty, with their numbers from 1; one that is no UTF-8 is set aside.

    Raises:
        UserError: if there is no such file.
    """
    try:
        data = folder.read(name)
    except ValueError as error:
        raise UserError(f"{folder}/{name}: {error}; check speech.path") from None
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            bad.add(f"{name}:{number}", f"not UTF-8 text: {error}")
            continue
        if text.strip():
            yield number, text


def rows_of(folder: SpeechFolder, table: str, bad: BadSamples) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Rows of a table with columns, each with its place among all rows and what messages call it."""
    if table.lower().endswith((".csv", ".tsv")):
        yield from _csv_rows(folder, table, bad)
        return
    for number, (line_number, line) in enumerate(lines_of(folder, table, bad)):
        item = f"{table}:{line_number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(item, f"not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, item, row
        else:
            bad.add(item, "not a JSON object")


def _csv_rows(folder: SpeechFolder, table: str, bad: BadSamples) -> Iterator[tuple[int, str, dict[str, Any]]]:
    numbers = list[int]()  # of the lines that the reader has had
    texts = _noting(lines_of(folder, table, bad), numbers)
    rows = csv.reader(texts, delimiter="\t" if table.lower().endswith(".tsv") else ",")
    head: list[str] | None = None
    for number in itertools.count(-1):
        before = len(numbers)
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(f"{table}:{numbers[-1]}", f"no CSV: {error}")
            continue
        item = f"{table}:{numbers[before]}"
        if head is None:
            head = [name.strip() for name in cells]
        elif len(numbers) - before > 1:
            # Often of a quotation mark that nobody closed: the rows after it are inside.
            bad.add(f"{item}-{numbers[-1]}", "a row of several lines; write each in one, quotation marks doubled")
        elif len(cells) != len(head):
            bad.add(item, f"has {len(cells)} columns, the first line {len(head)}")
        else:
            yield number, item, dict(zip(head, cells, strict=True))


def _noting(lines: Iterator[tuple[int, str]], numbers: list[int]) -> Iterator[str]:
    for number, text in lines:
        numbers.append(number)
        yield text + "\n"
