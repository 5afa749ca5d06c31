"""``muomni voice``: recordings with texts to a model that also speaks in their voice."""

import argparse
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from muomni.check.findings import Section, lines
from muomni.check.layouts import KINDS, Found, found_in
from muomni.checkpoint import input_sha256
from muomni.data.files import atomic_write_json
from muomni.data_commands import columns
from muomni.device import DeviceConfig, pick_device
from muomni.errors import UserError, one_line
from muomni.evaluate.judge import find_judge
from muomni.evaluate.sample_page import write_page
from muomni.evaluate.similarity import INSTALL, find_encoder
from muomni.evaluate.speech_check import Checked
from muomni.model_commands import check_writable, note
from muomni.omni import load_omni
from muomni.train import state
from muomni.voice.judging import AFTER, BEFORE, CODED, OLD, RECORDED, Compared, compare, table
from muomni.voice.making import MORE, Job, learn, nearest, save, sentences
from muomni.voice.recordings import Spoken, check, read_recordings, speech_section, spoiled
from muomni.voice.settings import ENOUGH

MOST_COMPARED = 40  # recordings of the person that voices are compared with


def recordings_in(args: argparse.Namespace) -> Found:
    """The folder that the options name.

    Raises:
        UserError: if no recordings are in it, or several kinds of data.
    """
    if args.source is not None:
        what, source = KINDS.get(args.source, ("", ""))
        if what != "speech":
            known = ", ".join(name for name, (kind, _) in KINDS.items() if kind == "speech")
            raise UserError(f"--source: '{one_line(args.source)[:40]}' is no layout of recordings; {known}")
        return Found(what, source, args.folder)
    found = [one for one in found_in(args.folder) if one.what == "speech"]
    if len(found) != 1:
        raise UserError(f"{args.folder}: {len(found)} sources of recordings with texts; name the one, or give --source")
    return found[0]


def named(args: argparse.Namespace, voices: list[str]) -> tuple[str, Path]:
    """The voice's name and the folder to write.

    Raises:
        UserError: if either is no good, or there already.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", args.name):
        raise UserError(f"--as: '{one_line(args.name)[:60]}' is not a name of letters, digits, '.', '_' and '-'")
    if args.name in voices:
        raise UserError(f"--as {args.name}: the model has such a voice already; choose another name")
    out = Path(args.out or f"checkpoints/{args.name}")
    if out.exists():
        raise UserError(f"{out}: is there already; remove it, or name another folder with --out")
    check_writable(out)
    return args.name, out


@contextmanager
def working_folder(name: str) -> Iterator[Path]:
    """The folder for a voice's unfinished work, which no other process works in meanwhile.

    Raises:
        UserError: if one does.
    """
    folder = Path(os.environ.get("MUOMNI_STATE") or ".muomni").absolute() / "voices" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: voice '{name}' is being learned already; wait for it or end it") from None
        yield folder


def checked(section: Section, failing: list[str], limit: float) -> None:
    """Print what was found, and stop if it would spoil the voice.

    Raises:
        UserError: in that case.
    """
    note("\n".join(lines(section, limit)))
    if failing:
        raise UserError(f"{section.address}: {', '.join(failing)}: would spoil the voice, see above; mend it first")


def voice(args: argparse.Namespace) -> int:
    """Check, learn, write, compare."""
    model, tokenizer, card = load_omni(args.checkpoint)
    name, out = named(args, model.cfg.talker.voices)
    found = recordings_in(args)
    cfg = speech_section(found, columns(args), model.cfg.mel.sample_rate)
    section, failing = check(cfg, model.cfg.audio_encoder.slots, args.limit, args.workers)
    checked(section, failing, args.limit)
    spoken = read_recordings(cfg, model.cfg.mel, tokenizer, args.speaker, spoiled(section))
    tell_recordings(spoken, cfg.sample_rate)
    device = pick_device(DeviceConfig(name=args.device, precision="auto", threads=0, memory_gb=None))
    model.to(device.device)
    encoder, judge = find_encoder(), find_judge(args.judge)
    person = [one.wave for one in spoken if one.split == "train"][:MOST_COMPARED]
    with working_folder(name) as folder:
        data, settings = provenance(args, found, section, spoken)
        mark = state.fingerprint(settings, data)
        like = nearest(model, tokenizer, person, encoder)
        steps = (args.codec_steps, args.steps)
        job = Job(model, tokenizer, name, like, steps, args.seed, device, folder, mark)
        note("the old voice says the same; then the codec, a converter and the Talker learn")
        made = learn(job, spoken)
        voices = model.cfg.talker.voices
        both = Compared(model, made.model, made.own, tokenizer, like, len(voices))
        held = [one for one in spoken if one.split == "test"]
        more = sentences("test", args.count, args.seed, [one.text for one in spoken])
        with tqdm(total=len(held) + len(more), desc="judging", unit="sentence", leave=False) as bar:
            result = compare(both, held, more, person, judge, encoder, args.seed, bar.update)
        about = {"name": name, "data": data, "params": settings, "metrics": flat(result.scores)}
        save(out, made, card, about, Path(args.checkpoint))
        report(out, name, voices[like], result, model.cfg.mel.sample_rate)
        for part in ("codec", "converter", "talker"):
            state.finish(folder / part)
    if judge is None and args.judge == "auto":
        note("no recogniser is installed that could judge what is understood; pip install 'muomni[judge]'")
    if encoder is None:
        note(f"no speaker encoder is installed that could compare voices; {INSTALL}")
    print(f'muomni say "There are two dogs." --checkpoint {out} --voice {name} --audio-out dogs.wav')
    return 0


def tell_recordings(spoken: list[Spoken], rate: int) -> None:
    """Say how many there are and what for."""
    parts = {
        split: [len(one.wave) / rate for one in spoken if one.split == split] for split in ("train", "valid", "test")
    }
    shown = ", ".join(f"{len(part)} of {sum(part) / 60:.1f} min for {split}" for split, part in parts.items())
    note(f"recordings: {shown}")
    if len(spoken) < ENOUGH:
        note(f"that is little: with {ENOUGH} and more the voice is better understood")


def provenance(
    args: argparse.Namespace, found: Found, section: Section, spoken: list[Spoken]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Hashes of what goes in, by name, and the settings: for the card, and to know a training again."""
    waves = hashlib.sha256()
    for one in spoken:
        waves.update(f"{one.name}\n{one.text}\n{one.split}\n".encode())
        waves.update(one.wave.numpy().tobytes())
    data = {"voice/recordings": waves.hexdigest(), "voice/model": input_sha256(Path(args.checkpoint))}
    settings = {
        "name": args.name,
        "from": f"{found.source} at {section.address}",
        "recordings": len(spoken),
        "licence": str(section.facts["licence"]),
        "steps": args.steps,
        "codec_steps": args.codec_steps,
        "converted_sentences": MORE,
        "seed": args.seed,
    }
    return data, settings


def flat(scores: dict[str, Any]) -> dict[str, float]:
    """Figures of `compare` by one name each, for the card."""
    return {
        f"voice_{kind}_{signal.replace(' ', '_')}": figure["value"]
        for signal, figures in scores["signals"].items()
        for kind, figure in figures.items()
    }


def report(out: Path, name: str, old: str, result: Checked, rate: int) -> None:
    """Print the figures, and write them and a page to listen with into ``metrics/voices``.

    Args:
        out: folder of the model with the voice.
        name: of the new voice.
        old: the voice that it grew from, whose figures before and after stand beside.
        result: scores, sentences and sounds.
        rate: samples a second of the sounds.
    """
    names = {
        RECORDED: "the recordings kept aside",
        CODED: "the same through the codec",
        BEFORE: f"before, {old}",
        AFTER: f"after, {name}",
        OLD: f"after, {old}",
    }
    figures = table(result.scores, names)
    print("".join(f"  {label:<52} {value}\n" for label, value in figures), end="", flush=True)
    place = Path("metrics/voices")
    atomic_write_json(place / f"{name}.json", {**result.scores, "texts": result.texts, "heard": result.heard})
    page = place / f"{name}.html"
    waves = {names[signal]: some for signal, some in result.waves.items()}
    heard = {names[signal]: some for signal, some in result.heard.items()}
    write_page(page, f"Voice {name}", figures, result.texts, waves, heard, rate)
    note(f"{out}: the model with the voice; {page}: to listen")
