"""The headline figures of an evaluation, by name, each ``{"value": ..., "n": ...}``."""

from typing import Any

from muomni.evaluate.measure import Figure

# Name in the summary: where the figure stands, as file and keys.
HEADLINES = {
    "thinker_perplexity": ("language", "thinker", "perplexity"),
    "thinker_bits_per_byte": ("language", "thinker", "bits_per_byte"),
    "omni_perplexity": ("language", "omni", "perplexity"),
    "ngram_perplexity": ("language", "ngram", "perplexity"),
    "ngram_bits_per_byte": ("language", "ngram", "bits_per_byte"),
    "unigram_perplexity": ("language", "unigram", "perplexity"),
    "hearing_cer": ("hearing", "clear", "cer"),
    "hearing_wer": ("hearing", "clear", "wer"),
    "hearing_cer_other_voices": ("hearing", "others", "cer"),
    "seeing_naming": ("seeing", "naming"),
    "seeing_objects": ("seeing", "objects"),
    "seeing_recall_1": ("seeing", "recall_1"),
    "seeing_recall_5": ("seeing", "recall_5"),
    "codec_mel_error": ("speech", "codec", "mel_error"),
    "codec_used_0": ("speech", "codec", "used_0"),
    "codec_used_1": ("speech", "codec", "used_1"),
    "recording_cer": ("speech", "cer", "recording"),
    "vocoder_cer": ("speech", "cer", "vocoder"),
    "codec_cer": ("speech", "cer", "codec"),
    "talker_cer": ("speech", "cer", "talker"),
    "talker_duration_ratio": ("speech", "talker", "duration_ratio"),
    "talker_ended": ("speech", "talker", "ended"),
    "accuracy": ("omni", "accuracy"),
    "naming_in_words": ("omni", "tasks", "name", "accuracy"),
    "caption_accuracy": ("omni", "tasks", "caption", "accuracy"),
    "single_accuracy": ("omni", "tasks", "single", "accuracy"),
    "scene_accuracy": ("omni", "tasks", "scene", "accuracy"),
    "scene_blind": ("omni", "tasks", "scene", "blind"),
    "scene_above_blind": ("omni", "tasks", "scene", "above_blind"),
    "world_accuracy": ("omni", "tasks", "world", "accuracy"),
    "spoken_scene_accuracy": ("omni", "tasks", "spoken_scene", "accuracy"),
    "spoken_world_accuracy": ("omni", "tasks", "spoken_world", "accuracy"),
    "dictation_cer": ("omni", "written", "dictation", "clear", "cer"),
    "dictation_cer_all_voices": ("omni", "written", "dictation", "all", "cer"),
    "read_aloud_text_cer": ("omni", "written", "read_aloud", "all", "cer"),
    "read_aloud_cer": ("omni", "speech", "read_aloud", "cer"),
}


def find(node: Any, *keys: str) -> Any:
    """What stands under some keys, or None."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def summarise(scores: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    """The headline figures.

    Args:
        scores: by file: language, hearing, seeing, speech, omni. What was not measured is left out.

    Returns:
        Also each swap test's share of answers that follow the new input, how many tests there are, and how many passed.
    """
    found: dict[str, Figure] = {}
    for name, keys in HEADLINES.items():
        place = find(scores, *keys)
        if place is not None:
            found[name] = {"value": place["value"], "n": place["n"]}
    swaps = {**(find(scores, "omni", "swaps") or {}), **(find(scores, "speech", "swaps") or {})}
    for name, test in swaps.items():
        if test["follows"] is not None:
            found[f"swap_{name}"] = {"value": test["follows"]["value"], "n": test["n"]}
    if swaps:
        found["swaps_passed"] = {"value": sum(test["pass"] for test in swaps.values()), "n": len(swaps)}
    return found


def table(summary: dict[str, Figure]) -> str:
    """The summary as lines of text."""
    lines = [f"{'figure':<28}{'value':>10}{'n':>9}"]
    lines += [f"{name:<28}{figure['value']:>10.4g}{figure['n']:>9}" for name, figure in summary.items()]
    return "\n".join(lines)
