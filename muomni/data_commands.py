"""``muomni data check`` and ``muomni data add``."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from muomni.check.adding import add_profile
from muomni.check.conversations import check_conversations
from muomni.check.findings import Section, lines
from muomni.check.layouts import KINDS, Found, found_in
from muomni.check.page import page
from muomni.check.pictures import check_pictures
from muomni.check.settings import conversations_config, pictures_config, speech_config, text_config
from muomni.check.speech import check_speech
from muomni.check.text import check_text
from muomni.config import near
from muomni.data.files import atomic_write_json, atomic_write_text
from muomni.errors import UserError
from muomni.params import Params, read_params
from muomni.tokenizer import Tokenizer

FAILED = 1  # exit code where something would stop or spoil a training


def sources(args: argparse.Namespace) -> list[Found]:
    """What the options name.

    Raises:
        UserError: if they name nothing, or too much.
    """
    if args.source is None:
        if args.folder is None or args.path is not None:
            raise UserError("muomni data: name a folder, or give --source and --path")
        return found_in(args.folder)
    address = args.path or args.folder
    if address is None or (args.path and args.folder):
        raise UserError("--source: needs --path, or a folder, and not both")
    if args.source not in KINDS:
        raise UserError(f"--source: '{args.source}' is not known{near(args.source, list(KINDS))}; {', '.join(KINDS)}")
    return [Found(*KINDS[args.source], address)]


def columns(args: argparse.Namespace) -> dict[str, str]:
    """``--column`` as a mapping.

    Raises:
        UserError: if one has no ``=``.
    """
    pairs = [entry.partition("=") for entry in args.column]
    for what, mark, name in pairs:
        if not mark or not what or not name:
            raise UserError(f"--column: '{what}{mark}{name}' is not WHAT=NAME, such as text=sentence")
    return {what: name for what, _, name in pairs}


def checked(found: Found, args: argparse.Namespace, params: Params) -> tuple[Section, float]:
    """What is found in a source, and the share of bad items that does no harm."""
    tokenizer = Tokenizer(args.tokenizer) if args.tokenizer else None
    script = args.script.upper()
    if found.what == "speech":
        speech = speech_config(params, found, columns(args), "")
        slots = params.audio_encoder.slots
        section = check_speech(speech, params.seed, slots, script, tokenizer, args.workers)
        return section, speech.max_bad_fraction
    if found.what == "text":
        text = text_config(params, found)
        return check_text(text, params.seed, script, tokenizer), text.max_bad_fraction
    if found.what == "conversations":
        talks = conversations_config(params, found)
        return check_conversations(talks, params, script, tokenizer, args.workers), talks.max_bad_fraction
    images = pictures_config(params, found)
    return check_pictures(images, params.seed, script, tokenizer), images.max_bad_fraction


def check(args: argparse.Namespace) -> int:
    """Print what is found, and write it where asked to.

    Raises:
        UserError: if a report cannot be written.
    """
    params = read_params(args.params)
    results = [checked(found, args, params) for found in sources(args)]
    sections = [section for section, _ in results]
    limits = [limit if args.limit is None else args.limit for _, limit in results]
    pairs = list(zip(sections, limits, strict=True))
    for section, limit in pairs:
        print("\n".join(lines(section, limit)))
    failing = sum(section.fails(name, limit) for section, limit in pairs for name in section.problems)
    try:
        if args.json:
            made = [section.as_json(limit) for section, limit in pairs]
            atomic_write_json(args.json, {"fails": failing > 0, "sections": made})
        if args.page:
            atomic_write_text(args.page, page(sections, limits))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from None
    if failing:
        print(f"{failing} problems would stop or spoil a training")
        return FAILED
    print("nothing was found that would stop or spoil a training")
    return 0


def add(args: argparse.Namespace) -> int:
    """Write a profile, and say what to run next."""
    found = sources(args)
    path = add_profile(found, args.name, columns(args), Path(args.params))
    print(f"wrote {path}; next:", file=sys.stderr)
    print(f"muomni profile {args.name}\nmuomni plan\nmake repro")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"check": check, "add": add}
