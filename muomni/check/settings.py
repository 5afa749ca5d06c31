"""The sections of params.yaml for a source that was found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muomni.check.layouts import Found
from muomni.config import parse
from muomni.data.conversations import ConversationsConfig
from muomni.data.image_corpus import ImagesConfig
from muomni.data.speech_corpus import SpeechConfig
from muomni.data.text_corpus import TextConfig
from muomni.params import Params

NO_SCENES = {"scenes": 0, "valid_scenes": 0, "test_scenes": 0}  # are composed of drawings


def whole(address: str) -> str:
    """An address that is the same from every folder: runs work in copies of this one."""
    return address if "://" in address else str(Path(address).resolve())


def speech_config(params: Params, found: Found, columns: Mapping[str, str], speaker: str) -> SpeechConfig:
    """Section ``speech``; raises UserError for an address with a secret in it or a column that there is none of."""
    new = {"source": found.source, "path": whole(found.address), "columns": dict(columns), "speaker": speaker}
    return parse(SpeechConfig, params.speech.model_dump() | new, "speech")


def text_config(params: Params, found: Found) -> TextConfig:
    """Section ``text``; raises UserError for an address with a secret in it."""
    return parse(TextConfig, params.text.model_dump() | {"source": found.source, "path": whole(found.address)}, "text")


def conversations_config(params: Params, found: Found) -> ConversationsConfig:
    """Section ``conversations``; raises UserError for an address with a secret in it."""
    new = {"source": found.source, "path": whole(found.address)}
    return parse(ConversationsConfig, params.conversations.model_dump() | new, "conversations")


def pictures_config(params: Params, found: Found) -> ImagesConfig:
    """Section ``images``; raises UserError for an address with a secret in it."""
    new: dict[str, Any] = {"source": found.source, "path": whole(found.address)}
    new |= NO_SCENES if found.source != "mixture" else {}
    return parse(ImagesConfig, params.images.model_dump() | new, "images")
