"""Swap tests: when the picture, the recording, the question or the text is exchanged, the answer must follow.

Each test asks a question with one input exchanged for that of another test item, and looks whether the answer says
what holds for the new input or what held for the old one. Where it says neither, the model was wrong but cannot be
accused of not looking. A model that ignores an input says the new fact as often as the old one, or nothing but other
things, and fails.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from muomni.audio_encoder import normalise
from muomni.data.dialogues import Dialogue
from muomni.evaluate.asking import Asker, question_of, with_media_of
from muomni.evaluate.measure import Figure, nearer, share

# The share of cases that must go with the new input, of those that go with either. A wrong answer to a question about a
# scene, for example one thing too few, is often by chance the old one.
THRESHOLDS = {"picture_name": 0.9, "picture_scene": 0.75, "question": 0.75, "audio": 0.9, "text": 0.9, "codes": 0.9}
DECIDED = 0.5  # and at least this share of the cases must go with either at all
Pair = tuple[Dialogue, Dialogue]  # the old item, and the one whose input takes its place


def verdict(test: str, outcomes: Sequence[int]) -> dict[str, Any]:
    """Whether a test passes.

    Args:
        test: a key of `THRESHOLDS`.
        outcomes: 1 where the answer follows the new input, -1 where it stays with the old one, 0 for neither.
    """
    new, old, n = outcomes.count(1), outcomes.count(-1), len(outcomes)
    follows: Figure | None = share([outcome > 0 for outcome in outcomes if outcome]) if new + old else None
    enough = n > 0 and new + old >= DECIDED * n
    passed = follows is not None and enough and follows["value"] >= THRESHOLDS[test]
    return {
        "pass": passed,
        "follows": follows,
        "threshold": THRESHOLDS[test],
        "n": n,
        "new": new,
        "old": old,
        "neither": n - new - old,
    }


def outcome(old: Dialogue, new: Dialogue, answer: str) -> int:
    """Whether an answer says the new item's fact (1), the old one's (-1), or neither or both (0)."""
    return int(new.is_right(answer)) - int(old.is_right(answer))


def apart(old: Dialogue, new: Dialogue) -> bool:
    """Whether no answer can state the facts of both: all single facts, none shared."""
    return len(old.targets) == len(new.targets) == 1 and old.targets != new.targets


def ring(members: Sequence[Dialogue]) -> Iterator[Pair]:
    """Each item with the next one of another answer, the last with the first."""
    for place, old in enumerate(members):
        after = [*members[place + 1 :], *members[:place]]
        new = next((other for other in after if apart(old, other)), None)
        if new is not None:
            yield old, new


def same_question(dialogues: Iterable[Dialogue], task: str) -> list[Pair]:
    """Pairs of a task that ask the same in the same words about different pictures."""
    groups: dict[tuple[str, str], list[Dialogue]] = {}
    for dialogue in dialogues:
        if dialogue.task == task and sum(name.endswith(".png") for name in dialogue.media) == 1:
            groups.setdefault((dialogue.kind, question_of(dialogue)), []).append(dialogue)
    return [pair for members in groups.values() for pair in ring(members)]


def same_picture(dialogues: Iterable[Dialogue]) -> list[Pair]:
    """Pairs of written questions about the same picture with different answers."""
    groups: dict[tuple[str, ...], list[Dialogue]] = {}
    for dialogue in dialogues:
        pictures = tuple(dialogue.media.values())
        if dialogue.task in ("name", "single", "scene") and len(pictures) == 1:
            groups.setdefault(pictures, []).append(dialogue)
    return [pair for members in groups.values() for pair in ring(members)]


def swap_pictures(asker: Asker, dialogues: Sequence[Dialogue], task: str, most: int) -> list[int]:
    """The same question with another picture."""
    pairs = same_question(dialogues, task)[:most]
    replies = asker.ask([with_media_of(old, new, ".png") for old, new in pairs])
    return [outcome(old, new, reply.text) for (old, new), reply in zip(pairs, replies, strict=True)]


def swap_questions(asker: Asker, dialogues: Sequence[Dialogue], most: int) -> list[int]:
    """Another question about the same picture."""
    pairs = same_picture(dialogues)[:most]
    replies = asker.ask([new for _, new in pairs])
    return [outcome(old, new, reply.text) for (old, new), reply in zip(pairs, replies, strict=True)]


def swap_recordings(asker: Asker, dialogues: Sequence[Dialogue], most: int) -> list[int]:
    """The same request for dictation with another recording."""
    rows = [d for d in dialogues if d.task == "dictation"]
    pairs = list(ring(rows))[:most]
    replies = asker.ask([with_media_of(old, new, ".flac") for old, new in pairs])
    return [
        nearer(normalise(reply.text), normalise(new.answer), normalise(old.answer))
        for (old, new), reply in zip(pairs, replies, strict=True)
    ]


def swap_texts(texts: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Each text takes the place of the one before it: whether the speech is nearer to it than to that one.

    Args:
        texts: what the Talker was given.
        heard: transcripts of what it said, all with the same voice and seed.
    """
    said = [normalise(text) for text in texts]
    return [nearer(heard[i], said[i], said[i - 1]) for i in range(len(said)) if said[i] != said[i - 1]]
