"""A profile that trains on data of one's own: params.yaml with the sources and what depends on them."""

import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from muomni.check.layouts import Found
from muomni.check.pictures import parts_of
from muomni.check.settings import NO_SCENES, conversations_config, pictures_config, speech_config, text_config
from muomni.data.badsamples import BadSamples
from muomni.data.chat_format import TASK
from muomni.data.concepts import by_name
from muomni.data.files import atomic_write_text, temporary_name
from muomni.data.mixtures import Origin
from muomni.data.own_speech import read_sources
from muomni.data.picture_sources import entries
from muomni.data.speech_corpus import CLEAR_VOICE
from muomni.data.speech_sources import OWN
from muomni.errors import UserError, one_line
from muomni.params import Params, read_params

PROFILES = Path("profiles")
SOURCES = Path("sources")  # files of mixtures
MOST_VOICES = 8
LEAST_RECORDINGS = 100  # of a further voice
OWN_SHARE = 0.2  # of the conversations that stage e-omni trains on, where all others together are about 1
SPLITS = ("train", "valid", "test")
Changes = dict[tuple[str, ...], Any]


def without(tasks: Sequence[str]) -> Changes:
    """No conversations of some tasks."""
    counts: Changes = {("conversations", split, task): 0 for split in SPLITS for task in tasks}
    return counts | {("e_omni", "weights", task): 0.0 for task in tasks}


def speech_changes(params: Params, found: Found, name: str, columns: Mapping[str, str]) -> Changes:
    """The source, and the voices that have enough recordings; a voice without a name gets the profile's.

    Raises:
        UserError: if no speaker is in every split.
    """
    config = speech_config(params, found, columns, "")
    parts = [part for part in config.parts() if part.source != "embedded"]
    where, bad = f"speech.path: {config.path}", BadSamples(1.0, "speech")
    spoken = [item for s in read_sources(parts, params.seed, bad, list, where, states=False) for item in s.items]
    embedded = len(parts) < len(config.parts())
    counts = Counter(item.speaker for item in spoken)
    splits: dict[str, set[str]] = {}
    for item in spoken:
        splits.setdefault(item.speaker, set()).add(item.split)
    changes: Changes = {("speech", key): getattr(config, key) for key in ("source", "path")}
    if found.source == "mixture":  # its file has them for each source
        changes |= {("speech", "columns"): {}, ("speech", "speaker"): ""}
    elif columns:
        changes["speech", "columns"] = dict(columns)
    if OWN in counts and found.source != "mixture":
        changes["speech", "speaker"] = name
    whole = [speaker for speaker, _ in counts.most_common() if splits[speaker] >= set(SPLITS)]
    if not whole and not embedded:
        raise UserError(
            f"{found.address}: no speaker is in training, validation and test, as a voice has to be; set "
            "talker.voices, d_codec.speaker and evaluate.speaker by hand"
        )
    some = [speaker for at, speaker in enumerate(whole) if at == 0 or counts[speaker] >= LEAST_RECORDINGS]
    voices = [name if speaker == OWN and found.source != "mixture" else speaker for speaker in some]
    voices = [*([CLEAR_VOICE] if embedded and CLEAR_VOICE not in voices else []), *voices][:MOST_VOICES]
    changes["talker", "voices"] = voices
    changes["d_codec", "speaker"] = voices[0] if len(voices) == 1 else ""
    changes["evaluate", "speaker"] = voices[0]
    if embedded:
        return changes
    return changes | without(("spoken_scene", "spoken_world"))  # nobody asked about pictures in it


def conversation_changes(params: Params, found: Found) -> Changes:
    """The source, and a share of the training if they have none yet."""
    config = conversations_config(params, found)
    changes: Changes = {("conversations", key): getattr(config, key) for key in ("source", "path")}
    if not params.e_omni.weights.own:
        changes["e_omni", "weights", TASK] = OWN_SHARE
    return changes


def text_changes(params: Params, found: Found) -> Changes:
    """The source."""
    config = text_config(params, found)
    return {("text", key): getattr(config, key) for key in ("source", "path")}


def picture_changes(params: Params, found: Found, name: str) -> Changes:
    """The source without scenes; or a mixture with the drawings, if none of its pictures has a name that is known.

    Raises:
        UserError: if the mixture's file is there already.
    """
    config = pictures_config(params, found)
    bad = BadSamples(1.0, "images")
    listed = (entry for part in parts_of(config) for entry in entries(part, bad, Origin("", "", "", "", 1.0)))
    if config.source == "mixture":
        return {("images", key): getattr(config, key) for key in ("source", "path")}
    if any(entry.name in by_name() for entry in listed):
        keys = ("source", "path", *NO_SCENES)
        changes: Changes = {("images", key): getattr(config, key) for key in keys}
        return changes | without(("scene", "spoken_scene"))
    SOURCES.mkdir(exist_ok=True)
    path = SOURCES / f"{name}-pictures.yaml"
    rows = [{"source": "embedded", "name": "drawings"}, {"source": config.source, "path": config.path, "name": "own"}]
    text = io.StringIO()
    YAML().dump(rows, text)
    if path.exists() and path.read_text(encoding="utf-8") != text.getvalue():
        raise UserError(f"{path}: is there already; choose another name with --as, or remove it")
    atomic_write_text(path, text.getvalue())
    return {("images", "source"): "mixture", ("images", "path"): str(path.resolve())}


def add_profile(found: Sequence[Found], name: str, columns: Mapping[str, str], base: Path) -> Path:
    """Write ``profiles/<name>.yaml``; what is there already is never overwritten.

    Args:
        found: the sources, one of each kind at most.
        name: of the profile.
        columns: of a manifest, what it calls audio, text, speaker and split.
        base: the parameters that are changed.

    Raises:
        UserError: for a bad name, a profile that is there, or parameters that do not fit.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
        raise UserError(f"--as: '{one_line(name)[:60]}' is not a name of small letters, digits, - and _")
    path = PROFILES / f"{name}.yaml"
    if path.exists():
        raise UserError(f"{path}: is there already; choose another name with --as, or remove it")
    if not PROFILES.is_dir():
        raise UserError(f"{PROFILES}/: no such folder; run this in the root of the repository")
    kinds = [one.what for one in found]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise UserError(f"{twice[0]}: several sources of it were found; name one folder, or a mixture of them")
    params, changes = read_params(base), Changes()
    for one in found:
        if one.what == "speech":
            changes |= speech_changes(params, one, name, columns)
        elif one.what == "conversations":
            changes |= conversation_changes(params, one)
        else:
            changes |= text_changes(params, one) if one.what == "text" else picture_changes(params, one, name)
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 120, True
    values = yaml.load(base.read_text(encoding="utf-8"))
    values["profile"] = name
    for (*above, last), value in changes.items():
        place = values
        for key in above:
            place = place[key]
        place[last] = value
    text = io.StringIO()
    text.write(f"# Profile {name}, by `muomni data add`: {base.name} with {', '.join(kinds)} of one's own.\n")
    yaml.dump(values, text)
    temporary = temporary_name(path)
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        read_params(temporary)
        os.link(temporary, path)  # unlike a rename it never overwrites
    except FileExistsError:
        raise UserError(f"{path}: is there already; choose another name with --as, or remove it") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path
