"""Checkpoints as someone might forge them: files changed, and the card made to agree with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from muomni.checkpoint import CARD, CONFIG, WEIGHTS
from muomni.data.files import sha256_file
from muomni.tokenizer import MODEL_FILE


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Change what a JSON file holds."""
    values = json.loads(path.read_text())
    how(values)
    path.write_text(json.dumps(values))


def agree(folder: Path) -> None:
    """Put the hashes of the files that lie there into the card."""

    def hashes(card: dict[str, Any]) -> None:
        names = [name for name in (CONFIG, MODEL_FILE) if (folder / name).is_file()]
        card["weights_sha256"] = sha256_file(folder / WEIGHTS)
        card["files_sha256"] = {name: sha256_file(folder / name) for name in names}

    change(folder / CARD, hashes)
