"""Your own recordings as utterances of the speech corpus: who says what, and in which split."""

from collections.abc import Mapping, Sequence

from muomni.data.badsamples import LONGEST, BadSamples
from muomni.data.folders import Folder
from muomni.data.grammar import words_of
from muomni.data.mixtures import Origin
from muomni.data.speech_files import SpeechFolder
from muomni.data.speech_sources import OWN, READERS, Clip
from muomni.data.splits import TEST_SHARE, VALID_SHARE, split_of
from muomni.data.utterances import Utterance
from muomni.errors import one_line, shortened

MOST_LICENCE = 1_000_000  # bytes
HELD_OUT = ("test", "valid")  # what a sentence in several splits is for, before training


def key_of(text: str) -> str:
    """What an utterance is about: its words without articles, so that one sentence by two speakers stays together."""
    return "own:" + " ".join(word for word in words_of(text) if word not in ("a", "an", "the"))


def splits_of(clips: Sequence[Clip], seed: int) -> list[str]:
    """The split of each recording: the corpus' own where it has a training split, else by a hash of the sentence.

    What a corpus lacks of validation and test is taken from its training, by the same hash.

    Returns:
        For each its split, or an empty text where its sentence is held out in another one: it has to be left out.
    """
    given = {clip.split for clip in clips if clip.split}
    keys = [key_of(clip.text) for clip in clips]
    found = []
    for clip, key in zip(clips, keys, strict=True):
        drawn = split_of(key, seed, VALID_SHARE, TEST_SHARE)
        keeps = "train" in given and clip.split and (clip.split != "train" or drawn in given)
        found.append(clip.split if keeps else drawn)
    for number, split in enumerate(HELD_OUT):
        others = ("train", *HELD_OUT[number + 1 :])
        held = {key for key, mine in zip(keys, found, strict=True) if mine == split}
        found = ["" if mine in others and key in held else mine for key, mine in zip(keys, found, strict=True)]
    return found


def state_of_recordings(address: str, origin: Origin) -> SpeechFolder:
    """The folder at an address; `origin` takes the state of all of its files. Raises UserError if there is none."""
    folder = SpeechFolder(address)
    origin.saw(folder.folder, folder.folder.files())
    return folder


def own_utterances(
    source: str,
    address: str,
    seed: int,
    bad: BadSamples,
    columns: Mapping[str, str] | None = None,
    speaker: str = "",
    origin: Origin | None = None,
) -> tuple[list[Utterance], list[dict[str, str]]]:
    """What a source of your own lists.

    Args:
        source: one of `READERS`.
        address: where it is.
        seed: the project's.
        bad: takes the rows that cannot be used, with the reason.
        columns: of a manifest, what it calls audio, text, speaker and split.
        speaker: who speaks where the source does not say.
        origin: takes the state of the files, the licence that is stated, and what there is.

    Returns:
        The utterances, and the repeats: recordings whose sentence the corpus has in a held-out split as well.

    Raises:
        UserError: if there is no such source, or it lacks a file or column.
    """
    folder = state_of_recordings(address, origin) if origin else SpeechFolder(address)
    clips = list(READERS[source](folder, columns or {}, bad))
    made, repeats = [], []
    for clip, split in zip(clips, splits_of(clips, seed), strict=True):
        if not split:
            item = shortened(one_line(clip.audio), LONGEST)
            repeats.append(
                {"item": item, "reason": f"its sentence is held out, and in {clip.split or 'train'} as well"}
            )
            continue
        about = (split, clip.text, clip.speaker or speaker or OWN, "own", key_of(clip.text))
        made.append(Utterance(f"{clip.number:06d}", *about, 1.0, clip.audio))
    if origin:
        origin.licence = "; ".join(stated_licences(folder.folder)) or origin.licence
        origin.items = len(made)
    return made, repeats


def stated_licences(folder: Folder) -> list[str]:
    """The first line of each file that tells a licence, with its name."""
    found = []
    for name in (name for name in folder.files() if "/" not in name):
        if name.upper().split(".")[0] in ("LICENSE", "LICENCE", "COPYING"):
            lines = folder.read(name, MOST_LICENCE)[:4000].decode("utf-8", "replace").split("\n")
            first = next((one_line(line) for line in lines if line.strip()), "empty")
            found.append(f"{name}: {shortened(first, 100)}")
    return found
