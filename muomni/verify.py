"""``muomni verify``: whether a checkpoint is what its card says, and what is known of how it was made.

Needs no network, and writes nothing. What differs within the checkpoint, or between the card and the data here, is a
fault; other parameters or another revision of the code here are notes: a checkout moves on.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from muomni.building import make_module
from muomni.checkpoint import (
    CARD,
    CONFIG,
    MOST_BYTES,
    Checkpoint,
    digests,
    input_sha256,
    peek_checkpoint,
    read_tensors,
    revision,
)
from muomni.data.files import sha256_file
from muomni.errors import UserError, one_line
from muomni.fitting import first_few, misfits, not_finite, outline
from muomni.model_sources import fetch_model
from muomni.tokenizer import MODEL_FILE, Tokenizer
from muomni.untrusted import plain_file

PARAMS = Path("params.yaml")
Result = Literal["ok", "differs", "not here", "note"]


@dataclass(frozen=True)
class Check:
    """What was found out about one thing.

    Attributes:
        what: which.
        result: ``differs`` is a fault; ``not here`` could not be checked; ``note`` is worth knowing.
        detail: what it is about.
    """

    what: str
    result: Result
    detail: str


def verify(folder: Path, data: bool = False) -> list[Check]:
    """Recompute what a checkpoint's card says.

    Args:
        folder: the checkpoint.
        data: also hash the data sets and checkpoints that went into it, where they are, in the current folder.

    Raises:
        UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no checkpoint folder here; give the folder of a trained checkpoint")
    try:
        found = peek_checkpoint(folder)
    except UserError as error:
        return [Check("readable", "differs", str(error))]
    checks = [*check_files(folder, found.card), *check_weights(folder, found), check_config(found)]
    if found.card["component"] == "omni":
        checks.append(check_tokenizer(folder, found))
    checks += check_data(found.card["data"], data)
    return [*checks, check_params(found.card["params"]), check_revision(found.card["revision"])]


def check_files(folder: Path, card: Mapping[str, Any]) -> Iterator[Check]:
    """Every file's hash, and whether there are others."""
    wanted = digests(card)
    for name, digest in wanted.items():
        try:
            mine = sha256_file(plain_file(folder, name, MOST_BYTES))
        except UserError as error:
            yield Check(name, "differs", str(error))
            continue
        yield compared(name, mine, digest)
    if others := sorted(path.name for path in folder.iterdir() if path.name not in (*wanted, CARD)):
        yield Check("other files", "differs", f"the card has no hash of {first_few(others)}")


def compared(what: str, mine: str, card: str) -> Check:
    """A hash as it is here against the card's."""
    if mine == card:
        return Check(what, "ok", f"SHA-256 {mine[:16]}...")
    return Check(what, "differs", f"SHA-256 is {mine[:16]}..., the card has {card[:16]}...")


def check_weights(folder: Path, found: Checkpoint) -> Iterator[Check]:
    """Names, shapes and types against the configuration, the count of parameters, and that every number is finite."""
    component, where = found.card["component"], str(folder / CONFIG)
    try:
        module = outline(lambda: make_module(component, found.config, found.state, where), found.state, str(folder))
    except UserError as error:
        yield Check("tensors", "differs", str(error))
        return
    if faults := [f"{kind}: {first_few(names)}" for kind, names in misfits(module, found.state).items() if names]:
        yield Check("tensors", "differs", f"{CONFIG} builds others; {'; '.join(faults)}")
        return  # they may have any size
    yield Check("tensors", "ok", f"{len(found.state)}, with the names, shapes and types that {CONFIG} builds")
    count, said = sum(p.numel() for p in module.parameters()), found.card["parameters"]
    same = count == said
    yield Check("parameters", "ok" if same else "differs", f"{count:,}" + ("" if same else f", the card has {said:,}"))
    try:
        bad = not_finite(read_tensors(folder, "copy it again", "cpu"))
    except UserError as error:
        yield Check("numbers", "differs", str(error))
        return
    what = f"NaN or infinity in {first_few(bad)}" if bad else "all finite"
    yield Check("numbers", "differs" if bad else "ok", what)


def check_config(found: Checkpoint) -> Check:
    """The configuration against the parameters that the card was written with."""
    params = found.card["params"]
    shared = [name for name in found.config if name in params]
    faults = [name for name in shared if found.config[name] != params[name]]
    if faults:
        return Check("configuration", "differs", f"the card's params have another {first_few(faults)}")
    if not shared:
        return Check("configuration", "not here", "the card has none of its sections")
    return Check("configuration", "ok", f"the card's params have the same {first_few(shared, 20)}")


def check_tokenizer(folder: Path, found: Checkpoint) -> Check:
    """The tokenizer of the whole model, and that it is the one which the card has among the data."""
    try:
        tokenizer = Tokenizer(plain_file(folder, MODEL_FILE))
    except UserError as error:
        return Check("tokenizer", "differs", str(error))
    thinker = found.config.get("thinker")
    pieces = thinker.get("vocab_size") if isinstance(thinker, dict) else None
    if tokenizer.vocab_size != pieces:
        return Check("tokenizer", "differs", f"has {tokenizer.vocab_size} pieces, {CONFIG} {pieces}")
    for path, digest in found.card["data"].items():
        if Path(path).name == MODEL_FILE and digest != tokenizer.sha256:
            return Check("tokenizer", "differs", f"the card has another hash of {path}")
    return Check("tokenizer", "ok", f"{tokenizer.vocab_size:,} pieces")


def check_data(data: Mapping[str, str], wanted: bool) -> Iterator[Check]:
    """The files and folders that went into a training against those in the current folder."""
    if not wanted:
        if data:
            yield Check("data", "not here", f"{len(data)} on the card were not looked at; --data hashes them")
        return
    for name, digest in data.items():
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            # A card from elsewhere must not have the whole disk read.
            yield Check(f"data {name}", "differs", "is no path within a checkout")
            continue
        try:
            mine = input_sha256(path) if path.exists() else None
        except (OSError, ValueError) as error:  # not to be read, or no name that a file can have
            yield Check(f"data {name}", "not here", str(error))
            continue
        if mine is None:
            yield Check(f"data {name}", "not here", "no such file or folder")
        else:
            yield compared(f"data {name}", mine, digest)


def check_params(params: Mapping[str, Any]) -> Check:
    """The card's parameters against params.yaml."""
    if not params:
        return Check("params", "not here", "the card has none")
    if not PARAMS.is_file():
        return Check("params", "not here", f"no {PARAMS}")
    try:
        mine = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        mine = None
    if not isinstance(mine, dict):
        return Check("params", "not here", f"{PARAMS} cannot be read")
    other: list[str] = []
    for name, values in params.items():
        if isinstance(values, dict) and isinstance(mine.get(name), dict):
            own = mine[name]
            other += [f"{name}.{key}" for key in {**values, **own} if values.get(key) != own.get(key)]
        elif values != mine.get(name):
            other.append(name)
    if other:
        return Check("params", "note", f"{PARAMS} has another {first_few(sorted(other))}")
    return Check("params", "ok", f"{PARAMS} has the same {len(params)} sections")


def check_revision(made: str) -> Check:
    """The commit that made it against the checkout's."""
    if not made or made == "unknown":
        return Check("revision", "not here", "the card names no commit")
    if made.endswith("-dirty"):
        return Check("revision", "note", f"made by {made[:12]} with changes that were not committed")
    mine = revision()
    if mine == "unknown":
        return Check("revision", "not here", f"made by {made[:12]}; no git checkout here")
    if mine == made:
        return Check("revision", "ok", f"{made[:12]}, as here")
    changes = ", with changes" if mine.endswith("-dirty") else ""
    return Check("revision", "note", f"made by {made[:12]}; here is {mine[:12]}{changes}")


def checkpoints_at(folder: Path) -> list[Path]:
    """The folder itself, or the checkpoints in it.

    Raises:
        UserError: if there are none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run `make repro` to train a model, or give a checkpoint's folder")
    if (folder / CARD).exists() or (folder / CONFIG).exists():
        return [folder]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for path in inside if (path / CARD).exists() or (path / CONFIG).exists()]
    if not found:
        raise UserError(f"{folder}: no checkpoint here; give the folder of a checkpoint, or a folder of them")
    return found


def command(args: argparse.Namespace) -> int:
    """Print what was found; 1 if something differs."""
    folders = checkpoints_at(fetch_model(args.model) if args.model else Path(args.folder))
    found = {str(folder): verify(folder, args.data) for folder in folders}
    if args.json:
        print(json.dumps({name: [asdict(check) for check in checks] for name, checks in found.items()}, indent=1))
    else:
        for name, checks in found.items():
            print(one_line(name))
            for check in checks:
                print(f"  {check.result:<8}  {one_line(check.what)}: {one_line(check.detail)}")
    return int(any(check.result == "differs" for checks in found.values() for check in checks))
