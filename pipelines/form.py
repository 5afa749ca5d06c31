"""The run form: what a person may change of ``params.yaml`` for one run, from the same typed sections.

Every parameter is there with its type, bounds and description, and may be left empty: then the value of the chosen
profile holds. Prefect makes the fields of its page from the model's JSON schema and refuses what does not fit it; what
sections must have in common is checked when the run starts.
"""

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_serializer
from pydantic.fields import FieldInfo

from muomni.config import USERINFO, near, parse
from muomni.errors import UserError
from muomni.evaluate.config import EvaluateConfig
from muomni.params import Params, check

# A choice of its own, and what is no part of a run: who becomes champion.
NOT_OFFERED = ("profile", "registry")


def in_words(value: Any) -> Any:
    """``true`` of True."""
    return str(value).lower() if isinstance(value, bool) else value


# A switch is a list to choose from: an untouched checkbox of the page would send false, where empty means unchanged.
Words = Literal["true", "false"]
Switch = Annotated[Words, BeforeValidator(in_words)]


class Changes(BaseModel):
    """What a run changes of its profile. Fields that stay empty change nothing."""

    model_config = ConfigDict(extra="forbid")

    @model_serializer
    def filled_in(self) -> dict[str, Any]:
        """Only what was filled in: the form's page sends what it got, and null is no value of any parameter."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        dumped = {name: value.filled_in() if isinstance(value, Changes) else value for name, value in found.items()}
        return {name: value for name, value in dumped.items() if value is not None and value != {}}

    def values(self) -> dict[str, Any]:
        """The same as values of ``params.yaml``."""
        found = self.filled_in()
        for name, info in type(self).model_fields.items():
            value, kind = getattr(self, name), cast(Any, info.annotation)
            if name in found and isinstance(value, Changes):
                found[name] = value.values()
            elif name in found and kind == Words:
                found[name] = value == "true"
        return found


def for_page(schema: dict[str, Any]) -> None:
    """Leave a field's default out of its schema, so that the form shows it empty and sends nothing.

    Prefect keeps what it is sent, so that a password in a text must be refused by the schema, and not only by the run.
    """
    schema.pop("default", None)
    for text in (schema, schema.get("items", {})):
        if text.get("type") == "string" and "enum" not in text:
            text["pattern"] = f"^(?![\\s\\S]*{USERINFO.pattern})"


def not_none(annotation: Any) -> Any:
    """``float`` of ``float | None``: None is what an empty field is."""
    rest = [part for part in get_args(annotation) if part is not NoneType]
    return rest[0] if get_origin(annotation) in (Union, UnionType) and len(rest) == 1 else annotation


def optional(name: str, info: FieldInfo) -> tuple[Any, Any]:
    """Type and default of a form's field: as in the section, but it may be left empty."""
    kind = not_none(info.annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        kind = form_of(kind)
    elif kind is bool:
        kind = Switch
    elif info.metadata:
        kind = Annotated[(kind, *info.metadata)]
    # Titled by its own name: pydantic would make "Lr" of "lr".
    return kind, Field(default=None, title=name, description=info.description, json_schema_extra=for_page)


@cache
def form_of(section: type[BaseModel]) -> type[Changes]:
    """A section's model with every field optional, and so are those of its subsections."""
    fields: dict[str, Any] = {
        name: optional(name, info) for name, info in section.model_fields.items() if name not in NOT_OFFERED
    }
    summary = None if section is Params else (section.__doc__ or "").strip().partition("\n")[0]
    return cast(type[Changes], create_model(section.__name__, __base__=Changes, __doc__=summary, **fields))


# Made once; the flows' parameters are of these types.
ParamChanges, EvaluateChanges = form_of(Params), form_of(EvaluateConfig)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with some values of it, at any depth, replaced."""
    out = dict(base)
    for key, value in changes.items():
        inner = out.get(key)
        out[key] = merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return out


def chosen(changes: Changes | Mapping[str, Any] | None) -> dict[str, Any]:
    """What was filled in, as nested plain values."""
    if changes is None:
        return {}
    return changes.values() if isinstance(changes, Changes) else dict(changes)


def applied(text: str, changes: Changes | Mapping[str, Any] | None, where: str) -> tuple[str, Params]:
    """A parameter file with changes, checked as a whole.

    Args:
        text: the file.
        changes: from the form, or a mapping of sections.
        where: the file's name, for messages.

    Returns:
        The new file, which is the old one byte for byte if nothing changes, and its sections.

    Raises:
        UserError: names the first key that is unknown or has a bad value, or two sections that disagree.
    """
    base = yaml.safe_load(text)
    if not isinstance(base, dict):
        raise UserError(f"{where}: expected sections of parameters, found {type(base).__name__}")
    new = merged(base, chosen(changes))
    params = parse(Params, new, where)
    check(params, where)
    return (text if new == base else yaml.safe_dump(new, sort_keys=False)), params


def keys(model: type[BaseModel] = Params, prefix: str = "") -> list[str]:
    """All parameters that one number, word or switch sets, as ``section.key``."""
    found: list[str] = []
    for name, info in model.model_fields.items():
        kind = not_none(info.annotation)
        if name in NOT_OFFERED and not prefix:
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += keys(kind, f"{prefix}{name}.")
        elif get_origin(kind) not in (list, dict, tuple):
            found.append(prefix + name)
    return found


def nested(key: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` of ``a.b``.

    Raises:
        UserError: if there is no such parameter.
    """
    known = keys()
    if key not in known:
        raise UserError(f"{key}: no such parameter{near(key, known)}")
    for part in reversed(key.split(".")):
        value = {part: value}
    return cast(dict[str, Any], value)
