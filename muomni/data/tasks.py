"""The tasks of the conversations: how each is composed of pictures, recordings and facts.

Every split uses its own pictures and recordings only. A question is trained on only if what it is about is in
training, so that a held-out question is neither heard nor read before the test.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muomni.data.concepts import Concept, a, by_name
from muomni.data.grammar import OPEN_QUESTIONS, QA, names_in, sentence, words_of
from muomni.data.sentences import scene_questions
from muomni.data.splits import combination_split
from muomni.data.world import pair_questions, world_questions
from muomni.errors import UserError
from muomni.prompts import DICTATION, READ_ALOUD

NAME_PROMPTS = (*OPEN_QUESTIONS["what"], "Tell me what this is.", "Name the thing in the picture.")
CAPTION_PROMPTS = (
    "Describe the picture.",
    "Describe this.",
    "Write a caption.",
    "Tell me about the picture.",
)
# Half of the time in the words that the commands use.
DICTATION_PROMPTS = (DICTATION, DICTATION, "Transcribe this.", "What is being said?")
READ_PROMPTS = (READ_ALOUD, READ_ALOUD, "Say this: {text}", "Please read: {text}")
CLEAR_VOICE = "hibari"
WORDINGS = 4  # how often a picture is asked about in other words, to find questions that were recorded
TASKS = (
    "name",
    "caption",
    "single",
    "scene",
    "world",
    "dictation",
    "read_aloud",
    "spoken_scene",
    "spoken_world",
)
OPEN_SHARE = 0.3  # of spoken questions for training: those that name nothing ("What is this?")
SEARCHED = 4000  # pictures that recorded questions are matched with


@dataclass(frozen=True)
class Conversation:
    """A question and its answer, and perhaps more of them about the same picture.

    Attributes:
        task: one of `TASKS`.
        kind: what accuracy is reported by: the kind of question, or the speaker.
        content: the user's parts: text, image and audio.
        answer: the assistant's text.
        targets: bare facts of a right answer, all of them if the kind is ``list``, else any; of dictation
            and reading the sentence.
        key: what it is about (`muomni.data.splits`).
        speech: whether the answer is to be spoken.
        members: files by name, as bytes or as a row of the speech corpus.
        sources: ids of the picture and the recording.
        more: further questions and answers; only training has them.
    """

    task: str
    kind: str
    content: list[dict[str, str]]
    answer: str
    targets: tuple[str, ...]
    key: str
    speech: bool = False
    members: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    more: list[QA] = field(default_factory=list)

    def about(self) -> dict[str, Any]:
        """The sample's JSON."""
        reply: dict[str, Any] = {
            "role": "assistant",
            "content": [{"type": "text", "text": self.answer}],
            "speech": self.speech,
        }
        if self.task == "read_aloud":
            reply["speech_member"] = "0.flac"  # what the answer sounds like
        messages = [{"role": "user", "content": self.content}, reply]
        for qa in self.more:
            messages += [
                {"role": "user", "content": [_text(qa.question)]},
                {"role": "assistant", "content": [_text(qa.answer)], "speech": self.speech},
            ]
        return {
            "task": self.task,
            "kind": self.kind,
            "messages": messages,
            "targets": list(self.targets),
            "key": self.key,
            "more": [{"kind": qa.kind, "question": qa.question, "targets": list(qa.targets)} for qa in self.more],
            **self.sources,
        }


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


IMAGE = {"type": "image", "member": "0.png"}
AUDIO = {"type": "audio", "member": "0.flac"}


class SplitConversations:
    """Composes the conversations of one split.

    Args:
        split: train, valid or test.
        seed: the project's seed.
        pictures: samples of the image shards.
        utterances: rows of the speech corpus; those of other splits are left out.
        concepts: what is asked about.
        turns: typed questions about one picture in a conversation for training, at most.
    """

    def __init__(
        self,
        split: str,
        seed: int,
        pictures: Sequence[Mapping[str, Any]],
        utterances: Sequence[dict[str, Any]],
        concepts: Sequence[Concept],
        turns: int = 1,
    ) -> None:
        self.split, self.seed, self.concepts = split, seed, concepts
        self.turns = turns if split == "train" else 1  # a held-out answer must not follow from the one before
        self.pictures = pictures
        # Pictures of one's own may show what nothing is known about: they can be named and described only.
        known = by_name()
        self.asked = [
            p for p in pictures if p["json"]["objects"] and all(i["name"] in known for i in p["json"]["objects"])
        ]
        self.utterances = [row for row in utterances if row["split"] == split]
        self.questions = {row["text"]: row for row in self.utterances if row["kind"] == "question"}
        self.questions |= {row["text"]: row for row in self.utterances if self._clear(row, "question")}

    @staticmethod
    def _clear(row: Mapping[str, Any], kind: str) -> bool:
        return row["speaker"] == CLEAR_VOICE and row["kind"] == kind

    def _allowed(self, key: str) -> bool:
        """Whether a question about `key` may be asked here: held-out splits ask theirs and training's."""
        return combination_split(key, self.seed) in ("train", self.split)

    def _rounds(self, items: Sequence[Any], rng: random.Random) -> Iterator[Any]:
        """Items in random order; again and again for training, where another wording makes another sample."""
        order = list(items)
        while order:
            rng.shuffle(order)
            yield from order
            if self.split != "train":
                return

    def make(self, task: str, number: int) -> list[Conversation]:
        """At most `number` conversations of a task; fewer where a split has no more that differ.

        Raises:
            UserError: if there is none at all.
        """
        rng = random.Random(f"{self.seed}:{self.split}:{task}")
        source: Callable[[random.Random], Iterator[Conversation | None]] = getattr(self, f"_{task}")
        made: list[Conversation] = []
        misses = 0
        for item in source(rng) if number else ():
            misses = 0 if item else misses + 1
            if item:
                made.append(item)
            if len(made) == number or misses > 20_000:
                break
        if number and not made:
            raise UserError(
                f"conversations.{self.split}.{task}: the pictures and recordings of this split allow none; "
                "make more of them, or set it to 0"
            )
        return made

    def _name(self, rng: random.Random) -> Iterator[Conversation]:
        singles = [picture for picture in self.pictures if picture["json"]["kind"] == "single"]
        for picture in self._rounds(singles, rng):
            name = picture["json"]["objects"][0]["name"]
            content = [IMAGE, _text(rng.choice(NAME_PROMPTS))]
            yield self._seen("name", "what", picture, content, f"It is {a(name)}.", (name,))

    def _caption(self, rng: random.Random) -> Iterator[Conversation]:
        for picture in self._rounds(self.pictures, rng):
            about = picture["json"]
            if about["kind"] == "captioned":
                yield self._described(picture, rng)
                continue
            names = tuple(dict.fromkeys(item["name"] for item in about["objects"]))
            content = [IMAGE, _text(rng.choice(CAPTION_PROMPTS))]
            answer = sentence(f"{about['caption']}.")
            yield self._seen("caption", "list", picture, content, answer, names)

    def _described(self, picture: Mapping[str, Any], rng: random.Random) -> Conversation:
        """A picture of one's own, in the words of one of its captions.

        Of an answer the first known thing that it names is compared; where no caption names one, all of its words.
        """
        captions = picture["json"]["captions"]
        content = [IMAGE, _text(rng.choice(CAPTION_PROMPTS))]
        named = dict.fromkeys(name for caption in captions for name in names_in(caption))
        targets = tuple(named) or tuple(" ".join(words_of(caption)) for caption in captions)
        return self._seen("caption", "words", picture, content, rng.choice(captions), targets)

    def _seen(
        self,
        task: str,
        kind: str,
        picture: Mapping[str, Any],
        content: list[dict[str, str]],
        answer: str,
        targets: tuple[str, ...],
    ) -> Conversation:
        key, members = picture["json"]["key"], {"0.png": picture["png"]}
        source = {"picture": picture["__key__"]}
        return Conversation(task, kind, content, answer, targets, key, members=members, sources=source)

    def _asked_about(self, picture: Mapping[str, Any], rng: random.Random) -> list[QA]:
        found = scene_questions(picture["json"], rng, self.concepts)
        return [qa for qa in found if self._allowed(qa.key)]

    def _single(self, rng: random.Random) -> Iterator[Conversation | None]:
        return self._questions("single", rng)

    def _scene(self, rng: random.Random) -> Iterator[Conversation | None]:
        return self._questions("scene", rng)

    def _questions(self, task: str, rng: random.Random) -> Iterator[Conversation | None]:
        """Typed questions about pictures of a kind, which is also the task's name."""
        pictures = [picture for picture in self.asked if picture["json"]["kind"] == task]
        for picture in self._rounds(pictures, rng):
            found = self._asked_about(picture, rng)
            if not found:
                yield None
                continue
            qa, *more = _one_of_a_kind(found, rng, rng.randint(1, self.turns))
            content = [IMAGE, _text(qa.question)]
            yield replace(self._seen(task, qa.kind, picture, content, qa.answer, qa.targets), more=more)

    def _spoken_scene(self, rng: random.Random) -> Iterator[Conversation | None]:
        # The recorded questions lead, so that each is asked about as often; of its answers, each as often.
        places: dict[str, dict[str, list[tuple[Mapping[str, Any], QA]]]] = {}
        for picture in rng.sample(self.asked, min(SEARCHED, len(self.asked))):
            found = [qa for _ in range(WORDINGS) for qa in self._asked_about(picture, rng)]
            for qa in {qa.question: qa for qa in found if qa.question in self.questions}.values():
                places.setdefault(qa.question, {}).setdefault(qa.target, []).append((picture, qa))
        for question in self._spoken_rounds(list(places), rng):
            answers = places[question]
            if not answers:
                yield None  # a held-out question meets each picture once
                continue
            target = rng.choice(sorted(answers))
            number = rng.randrange(len(answers[target]))
            picture, qa = answers[target][number] if self.split == "train" else answers[target].pop(number)
            if not answers[target]:
                del answers[target]
            row = self.questions[question]
            yield Conversation(
                "spoken_scene",
                qa.kind,
                [IMAGE, AUDIO],
                qa.answer,
                qa.targets,
                picture["json"]["key"],
                speech=True,
                members={"0.png": picture["png"], "0.flac": row},
                sources={"picture": picture["__key__"], "utterance": row["id"]},
            )

    def _spoken_rounds(self, questions: Sequence[str], rng: random.Random) -> Iterator[str]:
        """Questions again and again, those that name nothing with a share of their own."""
        named = [question for question in questions if names_in(question)]
        unnamed = [question for question in questions if not names_in(question)]
        while questions:
            yield rng.choice(unnamed if not named or (unnamed and rng.random() < OPEN_SHARE) else named)

    def _world(self, rng: random.Random) -> Iterator[Conversation | None]:
        told: set[str] = set()
        for _ in range(1 if self.split != "train" else 100):
            for qa in world_questions(self.concepts, rng):
                if combination_split(qa.key, self.seed) != self.split or qa.question in told:
                    yield None
                    continue
                told.add(qa.question)
                yield Conversation("world", qa.kind, [_text(qa.question)], qa.answer, qa.targets, qa.key)

    def _spoken_world(self, rng: random.Random) -> Iterator[Conversation | None]:
        answers = {qa.question: qa for _ in range(WORDINGS) for qa in world_questions(self.concepts, rng, 0)}
        for question in self.questions:
            qa = answers.get(question) or _comparison(question, rng)
            if qa is not None:
                answers[question] = qa
        known = sorted(answers.keys() & self.questions.keys())
        for question in self._spoken_rounds(known, rng) if self.split == "train" else known:
            qa, row = answers[question], self.questions[question]
            yield Conversation(
                "spoken_world",
                qa.kind,
                [AUDIO],
                qa.answer,
                qa.targets,
                qa.key,
                speech=True,
                members={"0.flac": row},
                sources={"utterance": row["id"]},
            )

    def _dictation(self, rng: random.Random) -> Iterator[Conversation]:
        for row in self._rounds(self.utterances, rng):
            content = [AUDIO, _text(rng.choice(DICTATION_PROMPTS))]
            yield self._said("dictation", row, content)

    def _read_aloud(self, rng: random.Random) -> Iterator[Conversation]:
        clear = [row for row in self.utterances if row["speaker"] == CLEAR_VOICE or row["kind"] == "own"]
        for row in self._rounds(clear, rng):
            content = [_text(rng.choice(READ_PROMPTS).format(text=row["text"]))]
            yield self._said("read_aloud", row, content)

    def _said(self, task: str, row: dict[str, Any], content: list[dict[str, str]]) -> Conversation:
        """A conversation whose answer is what a recording says."""
        return Conversation(
            task,
            row["speaker"],
            content,
            row["text"],
            (row["text"],),
            row["key"],
            speech=task == "read_aloud",
            members={"0.flac": row},
            sources={"utterance": row["id"]},
        )


def _one_of_a_kind(found: Sequence[QA], rng: random.Random, number: int) -> list[QA]:
    """At most `number` questions of different kinds; kinds with many questions do not crowd out the others."""
    kinds = sorted({qa.kind for qa in found})
    chosen = rng.sample(kinds, min(number, len(kinds)))
    return [rng.choice([qa for qa in found if qa.kind == kind]) for kind in chosen]


def _comparison(question: str, rng: random.Random) -> QA | None:
    """The answer to a question that compares two concepts, if it is one."""
    names, known = names_in(question), by_name()
    if len(names) != 2 or not all(name in known for name in names):
        return None
    for _ in range(4 * WORDINGS):
        for qa in pair_questions(known[names[0]], known[names[1]], rng):
            if qa.question == question:
                return qa
    return None
