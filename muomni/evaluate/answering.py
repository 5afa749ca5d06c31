"""How many answers of the whole model are right, by task and by kind of question."""

from collections.abc import Sequence
from typing import Any

from muomni.audio_encoder import normalise
from muomni.data.dialogues import Dialogue
from muomni.evaluate.asking import Reply, question_of
from muomni.evaluate.blind import Asked, Blind
from muomni.evaluate.measure import Figure, character_errors, figure, share, word_errors

WRITTEN = ("dictation", "read_aloud")  # tasks whose answer is a whole text, scored by its errors
OWN = "own"  # the task of conversations that somebody brought: `muomni.evaluate.own` scores them
LOOKING = ("name", "single", "scene", "spoken_scene")  # tasks whose questions are about a picture


def asked(dialogue: Dialogue) -> Asked:
    """A test conversation as the blind baseline sees it."""
    return Asked(dialogue.task, dialogue.kind, question_of(dialogue), tuple(dialogue.targets))


def by_kind(pairs: Sequence[tuple[Dialogue, Reply]]) -> dict[str, Figure]:
    """Accuracy of each kind of question."""
    kinds = sorted({dialogue.kind for dialogue, _ in pairs})
    return {kind: share([d.is_right(r.text) for d, r in pairs if d.kind == kind]) for kind in kinds}


def score_answers(pairs: Sequence[tuple[Dialogue, Reply]], blind: Blind) -> dict[str, dict[str, Any]]:
    """Accuracy of each task that has one, and for those that look what a blind answer reaches.

    Args:
        pairs: conversations and the model's replies.
        blind: the baseline.

    Returns:
        For each task ``accuracy``, ``kinds`` (accuracy of each), ``ended``; where there is a picture also ``blind``,
        ``blind_by`` (what it goes by) and ``above_blind``, the difference.
    """
    found: dict[str, dict[str, Any]] = {}
    for task in sorted({dialogue.task for dialogue, _ in pairs} - {*WRITTEN, OWN}):
        mine = [(d, r) for d, r in pairs if d.task == task]
        scores: dict[str, Any] = {
            "accuracy": share([d.is_right(r.text) for d, r in mine]),
            "kinds": by_kind(mine),
            "ended": share([r.ended for _, r in mine]),
        }
        if task in LOOKING:
            scores["blind"], scores["blind_by"] = blind.score([asked(d) for d, _ in mine])
            # The blind answers are fixed beforehand, so the interval is that of the model's share.
            base, own = scores["blind"]["value"], scores["accuracy"]
            low, high = own["interval"]
            scores["above_blind"] = figure(own["value"] - base, own["n"], low - base, high - base)
        found[task] = scores
    return found


def score_written(pairs: Sequence[tuple[Dialogue, Reply]], clear: str, seed: int) -> dict[str, dict[str, Any]]:
    """Error rates of the tasks whose answer is a text, of all recordings and of the clear voice."""
    found: dict[str, dict[str, Any]] = {}
    for task in WRITTEN:
        rows = [(d.kind, normalise(d.answer), normalise(r.text)) for d, r in pairs if d.task == task]
        for name, members in (("all", rows), ("clear", [row for row in rows if row[0] == clear])):
            said, got = [row[1] for row in members], [row[2] for row in members]
            if said:
                errors = {"cer": character_errors(said, got, seed), "wer": word_errors(said, got, seed)}
                found.setdefault(task, {})[name] = errors
    return found
