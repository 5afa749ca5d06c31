"""The concepts that a picture corpus draws and that sentences can be made about."""

from dataclasses import replace
from pathlib import Path

from muomni.data.concepts import Concept, by_name
from muomni.data.files import read_jsonl
from muomni.errors import UserError


def read_concepts(path: str | Path) -> list[Concept]:
    """Read the ``concepts.jsonl`` of a picture corpus.

    Returns:
        The concepts that our table has facts about, in the file's order, with its choice of scene concepts.

    Raises:
        UserError: if the file is missing or damaged, or names nothing that our table knows.
    """
    known = by_name()
    found: dict[str, Concept] = {}  # a name has several rows if it has several pictures
    for row in read_jsonl(path, "corpus-images"):
        if row.get("name") in known and "scene" in row:
            concept = known[row["name"]]
            found[concept.name] = replace(concept, scene=bool(row["scene"]))
    if not found:
        raise UserError(f"{path}: none of its names is in muomni/data/concepts.csv; sentences need such names")
    return list(found.values())
