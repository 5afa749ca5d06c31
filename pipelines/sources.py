"""Says which of one's own folders have changed since the stages read them: ``python -m pipelines.sources``.

DVC watches what is in the repository, and a folder of somebody's data may be anywhere. What a stage read is in its
manifest: the state of each source's files, as `muomni.data.folders.Folder.state` tells it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muomni.data.badsamples import BadSamples
from muomni.data.files import read_json
from muomni.data.mixtures import Origin, state_of_mixture
from muomni.data.own_conversations import state_of_conversations
from muomni.data.own_speech import state_of_recordings
from muomni.data.picture_sources import PicturePart, entries
from muomni.data.text_sources import file_documents
from muomni.errors import UserError, ending_in_one_line

MANIFESTS = {
    "corpus-text": "data/corpus/text/manifest.json",
    "corpus-images": "data/corpus/images/manifest.json",
    "corpus-speech": "data/corpus/speech/manifest.json",
    "conversation-shards": "data/shards/conversations/index.json",
}


def state_now(stage: str, row: dict[str, Any]) -> str:
    """The state of a source's files as they are now.

    Raises:
        UserError: if they cannot be looked at.
    """
    origin, bad = Origin(row["name"], row["source"], "", ""), BadSamples(1.0, stage)
    if stage == "corpus-text":  # a reader notes the state before it gives the first item
        next(file_documents(row["address"], 0, bad, row["source"], origin=origin), None)
    elif stage == "corpus-images":
        next(entries(PicturePart(source=row["source"], path=row["address"]), bad, origin), None)
    elif stage == "corpus-speech":
        state_of_recordings(row["address"], origin)
    else:
        state_of_conversations(row["address"], origin)
    return origin.state


def changed() -> Iterator[tuple[str, str, str]]:
    """Stage, address and what is the matter of every source that is not as it was read."""
    for stage, path in MANIFESTS.items():
        if not Path(path).is_file():
            continue
        manifest = read_json(path, stage)
        mixture = manifest.get("mixture")
        if mixture and state_of_mixture(mixture["address"], "path") != mixture["state"]:
            yield stage, mixture["address"], "has changed"
        for row in manifest.get("origins", []):
            if not row["state"]:
                continue  # of a package: pip knows its version
            try:
                if state_now(stage, row) != row["state"]:
                    yield stage, row["address"], "has changed"
            except UserError as error:
                yield stage, row["address"], f"cannot be looked at ({error})"


def main() -> int:
    """Print them; 1 if there are any."""
    found = list(changed())
    for stage, address, what in found:
        print(f"{address}: {what}; to read it again: dvc repro --force {stage}, then dvc repro")
    if not found:
        print("all sources are as they were read")
    return int(bool(found))


if __name__ == "__main__":
    with ending_in_one_line():
        sys.exit(main())
