"""What is in prose of one's own."""

import hashlib

from muomni.check.copies import Item, check_copies, check_near_copies
from muomni.check.findings import Sample, Section
from muomni.check.words import check_words, numbers
from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder
from muomni.data.own_speech import stated_licences
from muomni.data.text_corpus import MEGABYTE, SPLITS, TextConfig, read_documents, sample_documents, split_documents
from muomni.errors import UserError
from muomni.tokenizer import Tokenizer

SAMPLE_LETTERS = 400


def check_text(config: TextConfig, seed: int, script: str, tokenizer: Tokenizer | None) -> Section:
    """Read all documents as stage corpus-text will, and tell what is there.

    Args:
        config: section ``text``, of a source of one's own.
        seed: the project's, for the splits.
        script: that letters are expected in.
        tokenizer: to ask, if there is one.

    Raises:
        UserError: if there is no such source.
    """
    section = Section("text", config.source, config.path)
    bad = BadSamples(1.0, "text")
    documents, licences, _ = read_documents(config, config.max_document_mb * MEGABYTE, bad)
    section.total = len(documents) + len(bad)
    for entry in bad.items:
        section.add("cannot be used", entry["item"], entry["reason"])
    chosen = sample_documents(documents, config.max_mb * MEGABYTE, seed)
    try:
        splits = split_documents(chosen, seed, config.valid_fraction, config.test_fraction) if chosen else {}
    except UserError as error:
        section.add("too few", config.path, str(error))
        splits = {"train": chosen}
    sizes = [document.size for document in documents]
    section.facts |= {
        "documents": f"{len(documents):,} of {section.total:,} can be used, {len(chosen):,} of them fit in text.max_mb",
        "megabytes": f"{sum(sizes) / MEGABYTE:.3f}",
        "kilobytes of a document": numbers(size / 1000 for size in sizes),
    }
    rows = [[split, len(found), round(sum(d.size for d in found) / 1000, 1)] for split, found in splits.items()]
    section.tables["splits"] = [["name", "documents", "kilobytes"], *rows]
    section.histograms["kilobytes"] = [size / 1000 for size in sizes]
    for split in SPLITS:
        if not splits.get(split):
            section.add("split is empty", split, "no document that can be used")
    items = {
        document.id: Item(split, hashlib.sha256(document.text.encode()).hexdigest(), document.text)
        for split, found in splits.items()
        for document in found
    }
    check_copies(section, items)
    exact = {one.item for name, found in section.problems.items() if name.startswith("same item") for one in found}
    check_near_copies(section, {name: item for name, item in items.items() if name not in exact})
    check_words(section, ((document.id, document.text) for document in documents), script, tokenizer)
    stated = [] if config.source == "mixture" else stated_licences(Folder(config.path, "text.path"))
    named = sorted({entry["licence"] for entry in licences})
    section.facts["licence"] = "; ".join(stated or named)
    if not stated and config.source != "mixture":
        section.add("no licence is stated", config.path, "no LICENSE file")
    for document in documents[:3]:
        section.samples.append(Sample(document.id, document.text[:SAMPLE_LETTERS]))
    return section
