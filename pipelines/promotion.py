"""Who is champion: one rule for the stage ``register``, the command ``muomni registry`` and the flows.

A version becomes champion if it is better than the champion by section ``registry`` of params.yaml, on the same
held-out data. Who was champion before is kept in the tag ``former_champions`` of the registered model, so that one can
go back, and further back. The parts of a version are champions of their own names together with it.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muomni.errors import UserError
from muomni.evaluate.summary import direction
from muomni.registry_config import RegistryConfig
from pipelines.versions import (
    CHALLENGER,
    CHAMPION,
    SEE,
    Entry,
    added,
    aliases,
    mlflow_errors,
    reading_client,
    resolve,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FORMER = "former_champions"  # tag of a registered model: versions, the oldest first, as a JSON list
WITHDRAWN = "withdrawn"  # tag of a version that was champion and was rolled back from
PARTS = "parts"  # tag of a version: the version of each part by its registered name, as JSON


@dataclass(frozen=True)
class Decision:
    """What came of a promotion or a rollback.

    Attributes:
        promoted: whether the version is champion now.
        reason: one line.
        version: that it is about.
        champion: the version that is champion now, None if there is none.
    """

    promoted: bool
    reason: str
    version: str
    champion: str | None


def check_rule(cfg: RegistryConfig) -> None:
    """Make sure that the rule does not contradict which way the figures are better.

    Raises:
        UserError: if it does, or guards a figure of which neither way is better.
    """
    way = direction(cfg.promote_by)
    if way != "neither" and (way == "higher") != cfg.higher_is_better:
        right = str(not cfg.higher_is_better).lower()
        raise UserError(f"registry.higher_is_better: of {cfg.promote_by} {way} is better; make it {right}")
    for name in cfg.guards:
        if direction(name) == "neither":
            raise UserError(
                f"registry.guards: neither way is better of '{name}'; give figures of muomni/evaluate/summary.py that "
                "have a direction"
            )


def gain(new: float, old: float, higher: bool) -> float:
    """How much better a value is, negative if it is worse."""
    return new - old if higher else old - new


def better(new: float, old: float, cfg: RegistryConfig) -> bool:
    """Whether a challenger beats a champion."""
    found = gain(new, old, cfg.higher_is_better)
    return found > 0 and found >= cfg.min_gain


def verdict(cfg: RegistryConfig, challenger: Entry, champion: Entry) -> tuple[bool, str]:
    """Whether a challenger should take a champion's place, and why or why not."""
    name, stays = cfg.promote_by, f"{champion.title} stays champion"
    if not challenger.held_out or challenger.held_out != champion.held_out:
        return False, f"{stays}: it was measured on other held-out data, so nothing compares"
    for one, who in ((champion, "it"), (challenger, f"version {challenger.version}")):
        if name not in one.figures:
            return False, f"{stays}: {who} has no {name} to compare with"
    new, old = (one.figures[name]["value"] for one in (challenger, champion))
    if not better(new, old, cfg):
        least = f", by {cfg.min_gain:g} at least" if cfg.min_gain else ""
        way = "more" if cfg.higher_is_better else "less"
        return False, f"{stays}: {name} {old:.4g}, the challenger has {new:.4g} and needs {way}{least}"
    for guard, most in cfg.guards.items():
        if guard not in champion.figures:
            continue  # nothing that could get worse
        if guard not in challenger.figures:
            return False, f"{stays}: the challenger has no {guard}, which is guarded"
        was, now = (one.figures[guard]["value"] for one in (champion, challenger))
        if gain(now, was, direction(guard) == "higher") < -most:
            return False, f"{stays}: {guard} {was:.4g} would become {now:.4g}, worse by more than {most:g}"
    return True, f"{name} {new:.4g} beats {champion.title} with {old:.4g}"


def promote(
    cfg: RegistryConfig, ref: str = CHALLENGER, client: "MlflowClient | None" = None, again: bool = True
) -> Decision:
    """Make a version champion if it deserves it.

    Args:
        cfg: the rule.
        ref: the version, see `pipelines.versions.split`; of the model ``cfg.name``.
        client: of the registry; one is made if there is none.
        again: whether a version may be promoted that was rolled back from. Not by a stage that runs by itself.

    Raises:
        UserError: if there is no such version, the rule is bad, or MLflow fails.
    """
    check_rule(cfg)
    with mlflow_errors("promote again"):
        client = client or reading_client()
        new = resolve(client, cfg.name, ref)
        if new.name != cfg.name:
            raise UserError(f"{ref}: only versions of {cfg.name} are promoted; its parts follow it")
        holder = aliases(client, cfg.name).get(CHAMPION)
        if holder == new.version:
            return Decision(True, f"{new.title} is champion already", new.version, holder)
        if WITHDRAWN in new.tags and not again:
            reason = f"{new.title} was rolled back from; `muomni registry promote {new.version}` takes it again"
            return Decision(False, reason, new.version, holder)
        if holder is None:
            yes, reason = True, f"{new.title}: there was no champion"
        else:
            yes, reason = verdict(cfg, new, resolve(client, cfg.name, holder))
        if not yes:
            return Decision(False, reason, new.version, holder)
        if (
            holder is not None
        ):  # before the alias moves: what breaks off in between leaves one entry that does not count
            write_former(client, cfg.name, [*former(client, cfg.name), holder])
        crown(client, new)
        if WITHDRAWN in new.tags:
            client.delete_model_version_tag(cfg.name, new.version, WITHDRAWN)
        return Decision(True, reason, new.version, new.version)


def rollback(cfg: RegistryConfig, client: "MlflowClient | None" = None) -> Decision:
    """Make the champion before champion again; a second time, the one before that.

    Raises:
        UserError: if there was none before, or MLflow fails.
    """
    with mlflow_errors("roll back again"):
        client = client or reading_client()
        holder = aliases(client, cfg.name).get(CHAMPION)
        if holder is None:
            raise UserError(f"{cfg.name}: has no champion to go back from; {SEE}")
        history, before = former(client, cfg.name), None
        while history and before is None:
            number = history.pop()
            if number != holder:
                with suppress(UserError):  # it was deleted meanwhile
                    before = resolve(client, cfg.name, number)
        if before is None:
            raise UserError(f"{cfg.name}: no champion before version {holder} to go back to; {SEE}")
        crown(client, before)
        with suppress(UserError):
            gone = resolve(client, cfg.name, holder)
            back = f"for version {before.version}"
            added(client.set_model_version_tag, cfg.name, gone.version, WITHDRAWN, back)
        write_former(client, cfg.name, history)
        return Decision(True, f"{before.title} is champion again instead of {holder}", before.version, before.version)


def former(client: "MlflowClient", name: str) -> list[str]:
    """The versions that were champion before the present one, the oldest first."""
    return list(json.loads(client.get_registered_model(name).tags.get(FORMER, "[]")))


def write_former(client: "MlflowClient", name: str, numbers: list[str]) -> None:
    """Note the versions that were champion."""
    added(client.set_registered_model_tag, name, FORMER, json.dumps(numbers))


def crown(client: "MlflowClient", new: Entry) -> None:
    """Give a version and its parts the alias ``champion``; a part's version that was deleted is passed over."""
    for name, number in json.loads(new.tags.get(PARTS, "{}")).items():
        with suppress(UserError):
            part = resolve(client, name, number).version
            added(client.set_registered_model_alias, name, CHAMPION, part)
    added(client.set_registered_model_alias, new.name, CHAMPION, new.version)
