"""How to get the same model again: the revision, the profile, and what differs from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from muomni.errors import UserError

MOST_BYTES = 1_000_000
NOT_TRAINED = ("profile", "registry")  # sections that change no weight and no figure


@dataclass(frozen=True)
class Recipe:
    """What has to be set before the graph runs.

    Attributes:
        profile: the one that is nearest; empty if there is none to compare with.
        differences: by parameter, as ``thinker.d_model``: the profile's value, and this model's.
        whole: whether all parameters are known; else only those of the checkpoint's card, which has none of the data.
        seeds: by parameter.
    """

    profile: str
    differences: dict[str, tuple[Any, Any]]
    whole: bool
    seeds: dict[str, int]


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of parameters as it stands; empty if it is not there.

    Raises:
        UserError: if it is no YAML.
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES:,} bytes; that is no file of parameters")
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise UserError(f"{path}: is no YAML; put it right, or make it with `muomni profile NAME`") from None
    return found if isinstance(found, dict) else {}


def flat(params: Any, name: str = "") -> dict[str, Any]:
    """Nested parameters by their dotted names; a list counts as one value."""
    if not isinstance(params, Mapping) or (name and not params):
        return {name: params}
    found: dict[str, Any] = {}
    for key, value in params.items():
        found |= flat(value, f"{name}.{key}" if name else str(key))
    return found


def differences(profile: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Parameters whose values differ, of the sections that both have."""
    ours = flat({key: value for key, value in params.items() if key in profile and key not in NOT_TRAINED})
    theirs = flat({key: profile[key] for key in params if key in profile and key not in NOT_TRAINED})
    return {
        key: (theirs.get(key), ours.get(key)) for key in sorted({*ours, *theirs}) if theirs.get(key) != ours.get(key)
    }


def agree(params: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
    """Whether parameters may be those that a card was written with: its sections are the same."""
    return bool(card) and all(params.get(key) == value for key, value in card.items())


def recipe(card: Mapping[str, Any], params: Path = Path("params.yaml"), profiles: Path = Path("profiles")) -> Recipe:
    """Compare a model's parameters with the profiles.

    Args:
        card: the checkpoint's card.
        params: the file that may hold all parameters of it; if it does not agree with the card it is not used.
        profiles: folder of the profiles.

    Raises:
        UserError: if a file is no YAML.
    """
    known = read_yaml(params)
    whole = agree(known, card["params"])
    mine = known if whole else card["params"]
    tried = {path.stem: differences(read_yaml(path), mine) for path in sorted(profiles.glob("*.yaml"))}
    named = str(known.get("profile", "")) if whole else ""
    profile = named if named in tried else min(tried, key=lambda name: len(tried[name]), default="")
    seeds = {
        key: value for key, value in flat(mine).items() if key.rpartition(".")[2] == "seed" and isinstance(value, int)
    }
    return Recipe(profile, tried.get(profile, {}), whole, seeds)


def steps(recipe: Recipe, revision: str) -> list[str]:
    """The commands, in the repository."""
    commit = revision.removesuffix("-dirty")
    known = commit not in ("", "unknown")
    return [
        *([f"git checkout {commit}"] if known else []),
        *([f"muomni profile {recipe.profile}"] if recipe.profile else []),
        *(["# set in params.yaml what is listed below"] if recipe.differences else []),
        "make repro",
        "muomni verify --data",
    ]
