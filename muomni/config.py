"""Typed sections of ``params.yaml``.

Each component and stage defines its own section beside its code, as a subclass of `Section`; a stage reads only the
sections it needs, so that a changed parameter reruns only what depends on it. `muomni.params` holds the whole schema.
"""

import difflib
import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from muomni.errors import UserError

SECTIONS = (
    "profile",
    "seed",
    "device",
    "text",
    "images",
    "speech",
    "conversations",
    "mel",
    "tokenizer",
    "thinker",
    "vision_encoder",
    "audio_encoder",
    "codec",
    "talker",
    "vocoder",
    "griffin_lim",
    "fusion",
    "a_thinker",
    "b_audio_encoder",
    "c_vision_encoder",
    "d_codec",
    "d_talker",
    "d_vocoder",
    "e_omni",
    "evaluate",
    "registry",
)


USERINFO = re.compile(r"://[^\s/?#]*@")  # a user, perhaps with a password, in an address (RFC 3986)


class Section(BaseModel):
    """A group of parameters: unknown keys and values out of bounds are errors, and nothing changes after reading.

    No number is NaN or infinite: JSON, which a checkpoint's configuration is kept in, has neither. No text is an
    address with a user in it: parameters go into git, cards, MLflow and Prefect, for everybody to read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def public(cls, values: Any) -> Any:
        """Refuse passwords."""
        for key, value in values.items() if isinstance(values, dict) else ():
            texts = value if isinstance(value, list | tuple) else (value,)
            if any(isinstance(text, str) and USERINFO.search(text) for text in texts):
                raise PydanticCustomError(SECRET, "{key} has a user or a password in an address", {"key": str(key)})
        return values


S = TypeVar("S", bound=Section)


def near(word: str, choices: list[str]) -> str:
    """A hint `` (did you mean 'x'?)`` for a mistyped word, or an empty string."""
    found = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""


SECRET = "secret"  # nosec B105: the kind of an error
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80
SHORT.maxdict = SHORT.maxlist = SHORT.maxlevel = 4
MOST_BYTES = 1_000_000


class Loader(yaml.SafeLoader):
    """YAML without Python's objects, and without a key twice, of which the last one would silently count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping.

        Raises:
            yaml.constructor.ConstructorError: for a key that is there already; a kind of `yaml.YAMLError`.
        """
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            if isinstance(key.value, str):
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def load_params(path: str | Path = "params.yaml") -> dict[str, Any]:
    """Read a parameter file as a mapping of sections.

    Raises:
        UserError: if the file is missing, is not YAML, or names a section that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such parameter file; run `muomni profile tiny` to make params.yaml")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES:,} bytes; that is no file of parameters")
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path}: is no text in UTF-8 ({error}); save it so") from None
    try:
        params = Loader(text).get_single_data()
    except Exception as error:  # PyYAML's own, and whatever its readers of numbers and dates raise on odd ones
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(params, dict):
        raise UserError(f"{path}: expected sections of parameters, found {type(params).__name__}")
    for name in params:
        if name not in SECTIONS:
            known = near(name, list(SECTIONS)) if isinstance(name, str) and len(name) < 100 else ""
            raise UserError(f"{path}: unknown section {short(name)}{known}")
    return params


def short(value: object) -> str:
    """A value as a message shows it; also one that is millions of lists, or a number too long to be written."""
    try:
        text = SHORT.repr(value)
    except ValueError:
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse(cls: type[S], values: Any, where: str) -> S:
    """Check a mapping against a section's types and bounds.

    Args:
        cls: the section.
        values: the mapping as read.
        where: what a message calls it, for example ``params.yaml: thinker``.

    Raises:
        UserError: names the first key that is unknown, missing or has a bad value.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        *parents, last = ("", *(str(part) for part in first["loc"]))
        key = ".".join((*parents, last)).removeprefix(".")
        key = key if len(key) <= 200 else f"{key[:197]}..."
        name = f"{where}{'.' if ': ' in where else ': '}{key}" if key else where
        if first["type"] == "extra_forbidden":
            raise UserError(f"{name}: unknown key{near(last[:100], keys_at(cls, parents[1:]))}") from None
        if first["type"] == SECRET:  # without the value
            raise UserError(f"{name}: {first['msg']}; everybody can read parameters, so leave it out") from None
        if first["type"] == "missing":
            raise UserError(f"{name}: missing") from None
        raise UserError(f"{name}: {first['msg']}, got {short(first['input'])}") from None


def keys_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of a section's subsection."""
    for part in path:
        inner = cls.model_fields[part].annotation if part in cls.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        cls = inner
    return list(cls.model_fields)


def section(cls: type[S], name: str, path: str | Path = "params.yaml") -> S:
    """Read and check one section of a parameter file.

    Raises:
        UserError: if the file, the section or a value in it is missing or bad.
    """
    params = load_params(path)
    if name not in params:
        raise UserError(f"{path}: section '{name}' is missing")
    return parse(cls, params[name], f"{path}: {name}")


def scalar(name: str, path: str | Path = "params.yaml") -> int:
    """Read a top-level whole number such as ``seed``.

    Raises:
        UserError: if it is missing or no whole number.
    """
    value = load_params(path).get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        raise UserError(f"{path}: {name}: expected a whole number, got {short(value)}")
    return value
