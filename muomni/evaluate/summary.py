"""The headline figures of an evaluation, by name: ``{"value": ..., "n": ..., "interval": [low, high]}`` each."""

from typing import Any, Literal, cast

from muomni.evaluate.measure import Figure

Direction = Literal["higher", "lower", "neither"]

# Name in the summary: which way is better, then where the figure stands, as file and keys. Neither way is better for
# baselines, for the judge's own errors, and for what should be near one.
HEADLINES = {
    "thinker_perplexity": ("lower", "language", "thinker", "perplexity"),
    "thinker_bits_per_byte": ("lower", "language", "thinker", "bits_per_byte"),
    "omni_perplexity": ("lower", "language", "omni", "perplexity"),
    "omni_bits_per_byte": ("lower", "language", "omni", "bits_per_byte"),
    "ngram_perplexity": ("neither", "language", "ngram", "perplexity"),
    "ngram_bits_per_byte": ("neither", "language", "ngram", "bits_per_byte"),
    "unigram_perplexity": ("neither", "language", "unigram", "perplexity"),
    "hearing_cer": ("lower", "hearing", "clear", "cer"),
    "hearing_wer": ("lower", "hearing", "clear", "wer"),
    "hearing_cer_other_voices": ("lower", "hearing", "others", "cer"),
    "hearing_cer_unseen_voices": ("lower", "hearing", "unseen", "cer"),
    "seeing_naming": ("higher", "seeing", "naming"),
    "seeing_naming_unseen_style": ("higher", "seeing", "naming_unseen_style"),
    "seeing_objects": ("higher", "seeing", "objects"),
    "seeing_recall_1": ("higher", "seeing", "recall_1"),
    "seeing_recall_5": ("higher", "seeing", "recall_5"),
    "codec_mel_error": ("lower", "speech", "codec", "mel_error"),
    "codec_used_0": ("higher", "speech", "codec", "used_0"),
    "codec_used_1": ("higher", "speech", "codec", "used_1"),
    "recording_cer": ("neither", "speech", "cer", "recording"),
    "vocoder_cer": ("lower", "speech", "cer", "vocoder"),
    "codec_cer": ("lower", "speech", "cer", "codec"),
    "talker_cer": ("lower", "speech", "cer", "talker"),
    "talker_duration_ratio": ("neither", "speech", "talker", "duration_ratio"),
    "talker_ended": ("higher", "speech", "talker", "ended"),
    "accuracy": ("higher", "omni", "accuracy"),
    "naming_in_words": ("higher", "omni", "tasks", "name", "accuracy"),
    "caption_accuracy": ("higher", "omni", "tasks", "caption", "accuracy"),
    "single_accuracy": ("higher", "omni", "tasks", "single", "accuracy"),
    "scene_accuracy": ("higher", "omni", "tasks", "scene", "accuracy"),
    "scene_blind": ("neither", "omni", "tasks", "scene", "blind"),
    "scene_above_blind": ("higher", "omni", "tasks", "scene", "above_blind"),
    "world_accuracy": ("higher", "omni", "tasks", "world", "accuracy"),
    "spoken_scene_accuracy": ("higher", "omni", "tasks", "spoken_scene", "accuracy"),
    "spoken_world_accuracy": ("higher", "omni", "tasks", "spoken_world", "accuracy"),
    "dictation_cer": ("lower", "omni", "written", "dictation", "clear", "cer"),
    "dictation_cer_all_voices": ("lower", "omni", "written", "dictation", "all", "cer"),
    "read_aloud_text_cer": ("lower", "omni", "written", "read_aloud", "all", "cer"),
    "read_aloud_cer": ("lower", "omni", "speech", "read_aloud", "cer"),
    "own_perplexity": ("lower", "omni", "own", "perplexity"),
    "own_perplexity_exchanged": ("neither", "omni", "own", "exchanged"),
}


def find(node: Any, *keys: str) -> Any:
    """What stands under some keys, or None."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def direction(name: str) -> Direction:
    """Which way a figure of the summary is better; neither for one that is not known."""
    if name.startswith("swap"):  # each swap test's share, and how many passed
        return "higher"
    return cast(Direction, HEADLINES[name][0]) if name in HEADLINES else "neither"


def headline(figure: Figure, n: int) -> Figure:
    """A figure as the summary has it, with its interval where there is one."""
    found = {"value": figure["value"], "n": n}
    return found | {"interval": figure["interval"]} if "interval" in figure else found


def summarise(scores: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    """The headline figures.

    Args:
        scores: by file: language, hearing, seeing, speech, omni. What was not measured is left out.

    Returns:
        Also each swap test's share of answers that follow the new input, how many tests there are, and how many passed.
    """
    found: dict[str, Figure] = {}
    for name, (_, *keys) in HEADLINES.items():
        place = find(scores, *keys)
        if place is not None:
            found[name] = headline(place, place["n"])
    swaps = {**(find(scores, "omni", "swaps") or {}), **(find(scores, "speech", "swaps") or {})}
    for name, test in swaps.items():
        if test["follows"] is not None:
            found[f"swap_{name}"] = headline(test["follows"], test["n"])
    if swaps:
        found["swaps_passed"] = {"value": sum(test["pass"] for test in swaps.values()), "n": len(swaps)}
    return found


def table(summary: dict[str, Figure]) -> str:
    """The summary as lines of text."""
    lines = [f"{'figure':<28}{'value':>10}{'n':>9}"]
    lines += [f"{name:<28}{figure['value']:>10.4g}{figure['n']:>9}" for name, figure in summary.items()]
    return "\n".join(lines)
