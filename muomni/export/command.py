"""``muomni export``: a model as a folder that stands alone."""

import argparse
import errno
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from muomni.data.files import flush, flush_folder, naming, temporary_name
from muomni.errors import UserError
from muomni.export.model_card import model_card
from muomni.export.transformers_files import write_transformers
from muomni.model_commands import check_writable, note
from muomni.model_sources import fetch_model
from muomni.omni import load_omni
from muomni.passport.measured import read_measured

FORMATS = ("hf", "onnx")
NEEDED = {"hf": (), "onnx": ("onnx", "onnxscript", "onnxruntime")}  # packages that the writing takes


def command(args: argparse.Namespace) -> int:
    """Run ``muomni export``.

    Raises:
        UserError: if options contradict each other, or there is no model.
    """
    formats = chosen(args.format)
    if args.weights != "fp32" and "onnx" not in formats:
        raise UserError(f"--weights {args.weights}: is of the Thinker in ONNX; give --format onnx too")
    out = Path(args.out).resolve()  # what a link leads to is exchanged, not the link
    check_free(out)
    source = fetch_model(args.model) if args.model else Path(args.checkpoint)
    if not source.exists():
        raise UserError(f"{source}: no trained model here; run `make repro` to train one, or give --checkpoint")
    model, tokenizer, card = load_omni(source)
    measured = read_measured(Path("metrics"), card["component"], card["weights_sha256"])
    with appearing(out) as folder:
        if "hf" in formats:
            note("transformers: weights, configurations and code")
            write_transformers(folder, model, tokenizer)
        if "onnx" in formats:
            from muomni.export.onnx_files import write_onnx

            write_onnx(folder / "onnx", model, tokenizer, args.weights, note)
        (folder / "README.md").write_text(model_card(model, card, measured, formats), encoding="utf-8")
        (folder / "LICENSE").write_text(licence_text(), encoding="utf-8")
    print(out)
    return 0


def chosen(text: str) -> tuple[str, ...]:
    """The formats that an option names, whose packages are there.

    Raises:
        UserError: if one is unknown, or a package is missing.
    """
    formats = tuple(dict.fromkeys(text.split(",")))
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--format {text}: there is no '{name}'; give {', '.join(FORMATS)} or one of them")
        missing = [package for package in NEEDED[name] if find_spec(package) is None]
        if missing:
            raise UserError(
                f"--format {name}: needs {', '.join(missing)}, not installed here; run `pip install 'muomni[export]'`"
            )
    return formats


def check_free(out: Path) -> None:
    """Make sure that a folder can be made, before any work is done for it.

    Raises:
        UserError: if something is there, or it cannot be written.
    """
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is there and not empty; give another name, or remove it first")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is there and is no folder; give another name")
    check_writable(out.parent)


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder to write to, which gets its name once all is written; if that fails, nothing of it stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(out)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with naming(out):
            temporary.mkdir()
            yield temporary
            flush_folder(temporary)
            put_there(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_there(temporary: Path, out: Path) -> None:
    """Give a finished folder its name.

    Raises:
        UserError: if something came there meanwhile, or it is a place that cannot be exchanged.
    """
    try:
        os.replace(temporary, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY, errno.EXDEV):
            raise
        raise UserError(f"{out}: a folder cannot be put there ({error.strerror}); give another name") from None
    flush(out.parent)


def licence_text() -> str:
    """The licence of this code, which goes with the folder.

    Raises:
        UserError: if this installation has none.
    """
    for place in (Path(__file__).parents[2] / "LICENSE", *installed_licences()):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise UserError("LICENSE: this installation of muOmni has none; install it again with `make env`")


def installed_licences() -> Iterator[Path]:
    """Where an installed package has its licence."""
    try:
        files = importlib.metadata.files("muomni") or []
    except importlib.metadata.PackageNotFoundError:
        return
    yield from (Path(str(file.locate())) for file in files if file.name == "LICENSE")
