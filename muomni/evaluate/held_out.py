"""Which held-out data a figure was measured on: figures of two models compare only if this hash is the same."""

import hashlib
import json
from pathlib import Path
from typing import Any

from muomni.data.files import read_json
from muomni.data.shards import read_index
from muomni.evaluate.config import EvaluateConfig


def held_out(tokens: Path, shards: list[Path], cfg: EvaluateConfig) -> dict[str, Any]:
    """The hashes of all test files and of how they are used, and one hash over them.

    Args:
        tokens: folder of packed tokens.
        shards: folders of shards.
        cfg: which of it is used, and how.

    Raises:
        UserError: if an index is missing.
    """
    index = read_json(tokens / "index.json", "tokens")
    files = {(tokens / "test.bin").as_posix(): index["splits"]["test"]["sha256"]}
    for folder in shards:
        for shard in read_index(folder)["splits"]["test"]["shards"]:
            files[(folder / shard["file"]).as_posix()] = shard["sha256"]
    whole = {
        "files": files,
        "evaluate": cfg.model_dump(mode="json", exclude={"judge"}),
    }  # it judges, it is not the data
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return {"sha256": digest, **whole}
