"""Your own recordings as utterances of the speech corpus: who says what, in which split, of one source or several."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field

from muomni.config import parse
from muomni.data.badsamples import LONGEST, BadSamples
from muomni.data.folders import Folder
from muomni.data.grammar import words_of
from muomni.data.mixtures import Origin, Part, times
from muomni.data.speech_files import SpeechFolder
from muomni.data.speech_sources import OWN, READERS, Clip
from muomni.data.splits import TEST_SHARE, VALID_SHARE, split_of
from muomni.data.utterances import Utterance
from muomni.errors import UserError, one_line, shortened

MOST_LICENCE = 1_000_000  # bytes
HELD_OUT = ("test", "valid")  # what a sentence in several splits is for, before training
YOURS = Part.model_fields["licence"].default  # the licence that nobody stated
Column = Literal["audio", "text", "speaker", "split"]


class SpeechPart(Part):
    """A source of recordings in a mixture."""

    source: Literal["embedded", "folder", "ljspeech", "librispeech", "common_voice", "manifest"]
    columns: dict[Column, str] = Field(default_factory=dict, description="of a manifest: what it calls them")
    speaker: str = Field(default="", max_length=100, description="who speaks where it does not say; else its name")
    prefix: str = Field(default="", max_length=40, description="is put before the speakers that it names")
    shared: bool = Field(default=False, description="a speaker with the same name in another source is the same person")


@dataclass
class SpeechSource:
    """What a source lists.

    Attributes:
        part: how the mixture names it.
        origin: its entry of the manifest.
        items: what is to be recorded.
        times: how often training meets each of its training items, where that is not once.
        repeats: recordings whose sentence is held out in another split, with the reason; they are not among the items.
        left_out: how many items its weight left out.
    """

    part: SpeechPart
    origin: Origin
    items: list[Utterance]
    times: dict[str, int] = field(default_factory=dict)
    repeats: list[dict[str, str]] = field(default_factory=list)
    left_out: int = 0

    @property
    def within(self) -> str:
        """What stands before its items in messages."""
        return f"{self.part.name}/" if self.part.name else ""


def key_of(text: str) -> str:
    """What an utterance is about: its words without articles, so that one sentence by two speakers stays together."""
    return "own:" + " ".join(word for word in words_of(text) if word not in ("a", "an", "the"))


def dealt(clips: Sequence[Clip], seed: int, known: Mapping[str, str]) -> list[str]:
    """The split of each recording: the corpus' own where it has a training split, else by a hash of the sentence.

    What a corpus lacks of validation and test is taken from its training, by the same hash.

    Args:
        clips: of one source.
        seed: the project's.
        known: splits of sentences, by `key_of`, which are not drawn.
    """
    given = {clip.split for clip in clips if clip.split}
    found = []
    for clip in clips:
        key = key_of(clip.text)
        drawn = known.get(key) or split_of(key, seed, VALID_SHARE, TEST_SHARE)
        keeps = "train" in given and clip.split and (clip.split != "train" or drawn in given)
        found.append(clip.split if keeps else drawn)
    return found


def without_repeats(keys: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The splits, or an empty text where an item's key is held out in another split: it has to be left out."""
    found = list(splits)
    for number, split in enumerate(HELD_OUT):
        others = ("train", *HELD_OUT[number + 1 :])
        held = {key for key, mine in zip(keys, found, strict=True) if mine == split}
        found = ["" if mine in others and key in held else mine for key, mine in zip(keys, found, strict=True)]
    return found


def read_sources(
    parts: Sequence[SpeechPart],
    seed: int,
    bad: BadSamples,
    embedded: Callable[[], list[Utterance]],
    where: str,
    states: bool = True,
) -> list[SpeechSource]:
    """What all sources list; a sentence is in one split, whichever of them have it.

    Sentences of the embedded voices keep their splits, which pictures and questions share.

    Args:
        parts: the sources; one that stands alone has no name.
        seed: the project's.
        bad: takes the rows that cannot be used, with the reason.
        embedded: makes the utterances of the package's voices.
        where: what messages call the mixture.
        states: whether the origins get the state of all files, for which every one of them is read.

    Raises:
        UserError: if a source is missing or lacks a column, or speakers of two sources cannot be told apart.
    """
    labels = _labels(parts, where)
    made = {at: embedded() for at, part in enumerate(parts) if part.source == "embedded"}
    if len(made) > 1:
        raise UserError(f"{where}: 'embedded' is there twice; give it once, with a weight")
    known = {key_of(item.text): item.split for items in made.values() for item in items}
    sources = []
    for at, (part, label) in enumerate(zip(parts, labels, strict=True)):
        origin, before = Origin(part.name or part.source, part.source, part.path, part.licence, part.weight), len(bad)
        source = SpeechSource(part, origin, made.get(at, []))
        bad.within = source.within
        if at not in made:
            source.items = _own(part, origin if states else None, seed, bad, known)
        source.items = [replace(item, id=f"{label}{item.id}") for item in source.items]
        origin.bad = len(bad) - before
        sources.append(source)
    bad.within = ""
    if len(made) < len(parts):
        _leave_repeats(sources)
    if len(parts) > 1:
        _check_speakers(sources, where)
    for source in sources:
        _weigh(source, seed)
    return sources


def own_utterances(
    source: str,
    address: str,
    seed: int,
    bad: BadSamples,
    columns: Mapping[str, str] | None = None,
    speaker: str = "",
) -> tuple[list[Utterance], list[dict[str, str]]]:
    """What one source of your own lists.

    Args:
        source: one of `READERS`.
        address: where it is.
        seed: the project's.
        bad: takes the rows that cannot be used, with the reason.
        columns: of a manifest, what it calls audio, text, speaker and split.
        speaker: who speaks where the source does not say.

    Returns:
        The utterances, and the repeats: recordings whose sentence the corpus has in a held-out split as well.

    Raises:
        UserError: if there is no such source, or it lacks a file or column.
    """
    values = {"source": source, "path": address, "columns": dict(columns or {}), "speaker": speaker}
    (found,) = read_sources([parse(SpeechPart, values, "speech")], seed, bad, list, "speech.path", states=False)
    return found.items, found.repeats


def _labels(parts: Sequence[SpeechPart], where: str) -> list[str]:
    """What the ids of each source begin with: its name, in characters that a shard's keys may have."""
    labels = [re.sub(r"[^A-Za-z0-9]+", "-", part.name).strip("-") for part in parts]
    for at, label in enumerate(labels):
        if parts[at].name and (not label or label in labels[:at]):
            raise UserError(f"{where}: the name '{parts[at].name}' is too like another; use other letters or digits")
    return [f"{label}-" if label else "" for label in labels]


def _own(
    part: SpeechPart, origin: Origin | None, seed: int, bad: BadSamples, known: Mapping[str, str]
) -> list[Utterance]:
    """The utterances of a source of one's own, each in the split that the source alone gives it."""
    folder = state_of_recordings(part.path, origin) if origin else SpeechFolder(part.path)
    if origin and part.licence == YOURS:
        origin.licence = "; ".join(stated_licences(folder.folder)) or part.licence
    columns = {str(what): name for what, name in part.columns.items()}
    clips = list(READERS[part.source](folder, columns, bad))
    items = []
    for clip, split in zip(clips, dealt(clips, seed, known), strict=True):
        speaker = f"{part.prefix}{clip.speaker}" if clip.speaker else part.speaker or part.name or OWN
        about = (split, clip.text, speaker, "own", key_of(clip.text))
        items.append(Utterance(f"{clip.number:06d}", *about, 1.0, clip.audio))
    return items


def _leave_repeats(sources: Sequence[SpeechSource]) -> None:
    """Take out the items whose sentence is held out in another split."""
    items = [item for source in sources for item in source.items]
    whole = without_repeats([key_of(item.text) for item in items], [item.split for item in items])
    kept = iter(whole)
    for source in sources:
        mine = [(item, next(kept)) for item in source.items]
        source.items = [item for item, split in mine if split]
        for item in (item for item, split in mine if not split):
            name = shortened(one_line(f"{source.within}{item.source or item.id}"), LONGEST)
            source.repeats.append({"item": name, "reason": f"its sentence is held out, and in {item.split} as well"})


def _check_speakers(sources: Sequence[SpeechSource], where: str) -> None:
    """Raise UserError if two sources have a speaker of one name and do not both say that it is one person."""
    first: dict[str, SpeechSource] = {}
    for source in sources:
        for name in dict.fromkeys(item.speaker for item in source.items):
            other = first.setdefault(name, source)
            said = [one.part.shared or name == one.part.speaker for one in (other, source)]
            if other is not source and not all(said):
                both = f"'{other.part.name}' and '{source.part.name}' both have a speaker '{one_line(name)[:60]}'"
                raise UserError(
                    f"{where}: {both}; give one of them a prefix, or both `shared: true` if it is one person"
                )


def _weigh(source: SpeechSource, seed: int) -> None:
    """Say how often training meets each item, and leave out those that it does not meet."""
    if source.part.weight == 1:
        return
    mine = [item.id for item in source.items if item.split == "train"]
    source.times = times(mine, source.part.weight, seed)
    kept = [item for item in source.items if source.times.get(item.id, 1)]
    source.left_out = len(source.items) - len(kept)
    source.items = kept


def state_of_recordings(address: str, origin: Origin) -> SpeechFolder:
    """The folder at an address; `origin` takes the state of all of its files. Raises UserError if there is none."""
    folder = SpeechFolder(address)
    origin.saw(folder.folder, folder.folder.files())
    return folder


def stated_licences(folder: Folder) -> list[str]:
    """The first line of each file that tells a licence, with its name."""
    found = []
    for name in (name for name in folder.files() if "/" not in name):
        if name.upper().split(".")[0] in ("LICENSE", "LICENCE", "COPYING"):
            lines = folder.read(name, MOST_LICENCE)[:4000].decode("utf-8", "replace").split("\n")
            first = next((one_line(line) for line in lines if line.strip()), "empty")
            found.append(f"{name}: {shortened(first, 100)}")
    return found
