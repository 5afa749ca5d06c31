"""Packing text into tokens: one stream of 16-bit ids a split, an end-of-text between documents.

The stream is ``<|eot|> document <|eot|> document <|eot|> ...``: every token of the text and every end of a
document has something before it to be predicted from.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from muomni.data.files import atomic_write_json, naming, put_in_place, read_jsonl, sha256_file, temporary_name
from muomni.errors import UserError
from muomni.tokenizer import Tokenizer


def pack_split(rows: Iterable[dict[str, Any]], tokenizer: Tokenizer, path: str | Path) -> dict[str, Any]:
    """Encode documents into one file of little-endian uint16.

    Args:
        rows: ``{"id", "source", "text"}`` each.
        tokenizer: encodes the texts.
        path: the file; appears when it is complete.

    Returns:
        The split's entry in the index: file, sha256, tokens, documents, bytes of text, and the last three for
        each source. An end of text counts to its document; the very first one to none.
    """
    path = Path(path)
    sources: dict[str, dict[str, int]] = {}
    temporary = temporary_name(path)
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(np.array([tokenizer.eos], "<u2").tobytes())
            for row in rows:
                ids = [*tokenizer.encode(row["text"]), tokenizer.eos]
                file.write(np.array(ids, "<u2").tobytes())
                figures = sources.setdefault(row["source"], {"tokens": 0, "documents": 0, "bytes": 0})
                figures["tokens"] += len(ids)
                figures["documents"] += 1
                figures["bytes"] += len(row["text"].encode("utf-8"))
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    total = {name: sum(f[name] for f in sources.values()) for name in ("tokens", "documents", "bytes")}
    total["tokens"] += 1
    return {"file": path.name, "sha256": sha256_file(path), **total, "sources": sources}


def pack_corpus(corpus: str | Path, tokenizer: Tokenizer, out: str | Path) -> dict[str, Any]:
    """Pack all splits of the text corpus and write the index.

    Args:
        corpus: folder with ``train.jsonl``, ``valid.jsonl``, ``test.jsonl``.
        tokenizer: encodes the texts.
        out: an existing folder to write into.

    Returns:
        The index.

    Raises:
        UserError: if the corpus is missing, damaged, or a split has no document.
    """
    splits = {}
    for split in ("train", "valid", "test"):
        source = Path(corpus) / f"{split}.jsonl"
        splits[split] = pack_split(read_jsonl(source, "corpus-text"), tokenizer, Path(out) / f"{split}.bin")
        if splits[split]["documents"] == 0:
            raise UserError(f"{source}: holds no document; run `dvc repro --force corpus-text`")
    index = {
        "vocab_size": tokenizer.vocab_size,
        "eot": tokenizer.eos,
        "tokenizer": tokenizer.sha256,
        "splits": splits,
    }
    atomic_write_json(Path(out) / "index.json", index)
    return index
