"""Known limits of a model, each derived from a figure or a fact of its card. What was not measured is not claimed."""

from collections.abc import Iterator, Mapping
from typing import Any

from muomni.passport.measured import Measured, Value

FEW = 30  # items below which a figure is told to be rough
LEAST = 5  # items below which a kind of question says nothing
CHANCE = "no better than the best answer given without looking"


def share(figure: Mapping[str, Any]) -> str:
    """A share as of how many: ``0.20 (95 % interval 0.07 to 0.45, n 15)``."""
    low, high = figure.get("interval") or (None, None)
    interval = f"95 % interval {low:.2f} to {high:.2f}, " if low is not None and high is not None else ""
    return f"{figure['value']:.2f} ({interval}n {figure['n']})"


def of(value: Value | None) -> dict[str, Any]:
    """A figure of the summary in the form of the other files."""
    return value.model_dump() if value else {}


def limits(card: Mapping[str, Any], measured: Measured) -> list[str]:
    """Sentences, the gravest first.

    Args:
        card: the checkpoint's card.
        measured: its evaluation.
    """
    found = [*of_making(card)]
    if measured.reason:
        return [*found, f"No figures: {measured.reason}."]
    if card["component"] == "omni":
        found += [*of_tasks(measured.scores.get("omni", {})), *of_swaps(measured.scores)]
        found += of_speech(measured)
    return [*found, *of_words(measured), *of_few(measured)]


def of_making(card: Mapping[str, Any]) -> Iterator[str]:
    """What the card itself tells."""
    revision = card["revision"]
    if revision.endswith("-dirty"):
        yield "It was trained with code that was not committed: its revision alone does not give it again."
    elif revision == "unknown":
        yield "It was trained outside of git: the revision of its code is not known."
    skipped = card["metrics"].get("skipped_steps", 0)
    if skipped:
        yield f"{skipped:.0f} steps of its training were skipped, because the loss or the gradient was not finite."
    if not card.get("sources"):
        yield "Its card names no sources of data, so their licences are not known from it."
    for source in card.get("sources", []):
        if source["bad"]:
            yield f"{source['bad']:,} items of {source['corpus']} were set aside as unusable."


def of_tasks(omni: Mapping[str, Any]) -> Iterator[str]:
    """The worst task, the worst kind of question, and tasks that chance explains."""
    tasks = {name: task for name, task in omni.get("tasks", {}).items() if "accuracy" in task}
    if not tasks:
        return
    name = min(tasks, key=lambda key: tasks[key]["accuracy"]["value"])
    yield f"Worst task: {named(name)}, right at {share(tasks[name]['accuracy'])}."
    kinds = {
        (task, kind): figure
        for task, scores in tasks.items()
        for kind, figure in scores.get("kinds", {}).items()
        if figure["n"] >= LEAST
    }
    worst = sorted(kinds, key=lambda key: kinds[key]["value"])[:3]
    if worst:
        told = "; ".join(f"{named(kind)} of {named(task)} {share(kinds[task, kind])}" for task, kind in worst)
        yield f"Worst kinds of question (of at least {LEAST} asked): {told}."
    for task, scores in tasks.items():
        blind = scores.get("blind")
        if blind and scores["accuracy"].get("interval", [0, 0])[0] <= blind["value"]:
            yield f"{named(task)}: right at {share(scores['accuracy'])}, {CHANCE}, {blind['value']:.2f}."


def of_swaps(scores: Mapping[str, Any]) -> Iterator[str]:
    """Inputs that answers do not follow."""
    tests = {**scores.get("omni", {}).get("swaps", {}), **scores.get("speech", {}).get("swaps", {})}
    for name, test in tests.items():
        if not test["pass"]:
            follows = share(test["follows"]) if test["follows"] else "too few answers to tell"
            yield f"Answers do not follow the input well enough when the {named(name)} is exchanged: {follows}."


def of_speech(measured: Measured) -> Iterator[str]:
    """Voices that it does not hear well, and speech that is not understood."""
    figures = measured.figures
    clear, others = of(figures.get("hearing_cer")), of(figures.get("hearing_cer_other_voices"))
    if clear and others and others["interval"] and others["interval"][0] > clear["value"]:
        yield f"Other voices than its own are misheard: character errors {share(others)}, its own {clear['value']:.2f}."
    aloud = of(figures.get("read_aloud_cer"))
    if aloud:
        yield f"Reading aloud, a recogniser mishears {share(aloud)} of the characters."
    ended = of(figures.get("talker_ended"))
    if ended and ended["value"] < 1:
        yield f"Speech that does not end by itself: only {share(ended)} of sentences ended."
    judge = measured.scores.get("speech", {}).get("judge")
    if judge in ("off", "not installed"):
        yield f"No recogniser judged its speech ({judge}): how well it is understood was not measured."


def of_words(measured: Measured) -> Iterator[str]:
    """How much language it knows."""
    seeing = measured.scores.get("seeing", {})
    if isinstance(seeing.get("names"), int) and "seeing_naming" in measured.figures:
        yield f"Naming a pictured thing chooses among {seeing['names']} names: anything else gets one of these, too."
    for name in ("omni", "thinker"):
        mine, base = measured.figures.get(f"{name}_perplexity"), measured.figures.get("ngram_perplexity")
        if mine and base and mine.value >= base.value:
            yield f"Its language is no better than counts: perplexity {mine.value:.1f}, n-gram {base.value:.1f}."
            return


def of_few(measured: Measured) -> Iterator[str]:
    """Figures of few items."""
    few = [name for name, one in measured.figures.items() if 0 < one.n < FEW and not counts(name)]
    if few:
        yield f"Measured on fewer than {FEW} items, so rough: {', '.join(named(name) for name in few)}."


def counts(name: str) -> bool:
    """Whether a figure's n is no number of test items: tasks that a mean is over, or tests that passed."""
    return name in ("accuracy", "swaps_passed")


def named(name: str) -> str:
    """A name of a figure, task or kind in words."""
    return name.replace("_", " ").replace("-", " ")
