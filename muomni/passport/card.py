"""The readable card of a model: Markdown, a page that shows and plays, and all of it as values.

A checkpoint's own ``card.json`` is written when its training ends and never changes; what an evaluation finds later is
read beside it, and counts only if it was of these weights.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muomni.checkpoint import peek_checkpoint
from muomni.errors import UserError
from muomni.passport import sections
from muomni.passport.blocks import Part, markdown, page
from muomni.passport.limits import limits, named
from muomni.passport.measured import Measured, read_measured
from muomni.passport.reproduce import Recipe, recipe, steps
from muomni.passport.samples import rows, samples

# Of the 5,000 characters that a registry keeps of a version's description; it adds links to the card's pages.
MOST_DESCRIPTION = 4600
OMNI = (
    "A tiny omni model, trained from scratch: it reads text, looks at pictures, listens to speech, and answers in text "
    "and in speech. {count} parameters; weights {weights}."
)
PART = "The {name} of a tiny omni model, trained from scratch. {count} parameters; weights {weights}."


@dataclass(frozen=True)
class Passport:
    """All that is known of a model.

    Attributes:
        card: of its checkpoint.
        measured: its evaluation.
        recipe: how to make it again.
        limits: what it is known not to do well.
        plots: folder of the evaluation's pictures.
    """

    card: Mapping[str, Any]
    measured: Measured
    recipe: Recipe
    limits: list[str]
    plots: Path


def read_passport(
    checkpoint: str | Path,
    metrics: Path = Path("metrics"),
    plots: Path = Path("plots"),
    params: Path = Path("params.yaml"),
    profiles: Path = Path("profiles"),
) -> Passport:
    """Gather what is known of a checkpoint.

    Args:
        checkpoint: its folder.
        metrics: what stage evaluate wrote; figures of other weights are left out, and that is said.
        plots: its pictures.
        params: the parameters that it may have been made with; used if they agree with its card.
        profiles: to compare the parameters with.

    Raises:
        UserError: if there is no checkpoint, or something is damaged.
    """
    card = peek_checkpoint(checkpoint).card
    measured = read_measured(metrics, card["component"], card["weights_sha256"])
    try:
        found = limits(card, measured)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{metrics}: files of another form ({error!r}); run `dvc repro --force evaluate`") from None
    return Passport(card, measured, recipe(card, params, profiles), found, plots)


def title(passport: Passport) -> str:
    """What the card is called."""
    component = str(passport.card["component"])
    return "muOmni" if component == "omni" else f"muOmni: {named(component)}"


def first(passport: Passport) -> str:
    """The sentence below the title."""
    card = passport.card
    form = OMNI if card["component"] == "omni" else PART
    count, weights = f"{card['parameters']:,}", card["weights_sha256"][:16]
    return form.format(name=named(card["component"]), count=count, weights=weights)


def text_parts(passport: Passport) -> list[Part]:
    """The parts of the card that are words and numbers, in the order in which a reader wants them."""
    card = passport.card
    reached, *further = sections.reaches(passport.measured, card)
    return [
        reached,
        sections.limits(passport.limits),
        sections.reproducing(card, passport.recipe),
        sections.data(card),
        sections.parameters(card),
        sections.making(card),
        *further,
        sections.corpora(card),
    ]


def all_parts(passport: Passport) -> list[Part]:
    """The parts of the card, with what one can see and hear behind the figures and limits."""
    reached, known, *rest = text_parts(passport)
    return [reached, known, *samples(passport.measured.samples, passport.plots), *rest]


def as_markdown(passport: Passport) -> str:
    """The card as Markdown, whole; of its examples the words, as it is a file without others beside it."""
    return markdown(title(passport), first(passport), all_parts(passport))


def description(passport: Passport, most: int = MOST_DESCRIPTION) -> str:
    """The card as Markdown in no more characters than a registry keeps: whole parts, as many as fit, in their order.

    A part that does not fit is left out and named at the end; nothing is cut off within.
    """
    parts = text_parts(passport)
    kept = list(parts)
    while True:
        out = [part.title for part in parts if part not in kept]
        told = f"\nLeft out for length: {', '.join(out)}. All of it is in card/ of the version's run.\n" if out else ""
        text = markdown(title(passport), first(passport), kept) + told
        if len(text) <= most or not kept:
            return text[:most]
        kept.pop()


def as_page(passport: Passport) -> str:
    """The card as one file of HTML, with pictures and players."""
    return page(title(passport), first(passport), all_parts(passport))


def as_values(passport: Passport) -> dict[str, Any]:
    """The card as JSON values: the checkpoint's own, figures with intervals, limits, examples, how to make it again."""
    measured, how = passport.measured, passport.recipe
    return {
        "card": dict(passport.card),
        "figures": {name: one.model_dump(mode="json") for name, one in measured.figures.items()},
        "held_out_sha256": measured.held_out,
        "not_measured": measured.reason,
        "limits": passport.limits,
        "examples": rows(measured.samples),
        "reproduce": asdict(how)
        | {
            "differences": {key: list(pair) for key, pair in how.differences.items()},
            "commands": steps(how, passport.card["revision"]),
        },
    }
