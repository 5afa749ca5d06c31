"""What is in conversations of one's own."""

import hashlib
import io
import json
from collections import Counter

import soundfile

from muomni.check.copies import Item, check_copies, check_near_copies
from muomni.check.findings import Sample, Section
from muomni.check.words import check_words, numbers
from muomni.data.badsamples import BadSamples
from muomni.data.chat_format import Fitting, OwnConversation
from muomni.data.conversations import ConversationsConfig
from muomni.data.folders import Folder
from muomni.data.mixtures import Origin
from muomni.data.own_conversations import read_conversations
from muomni.data.own_speech import YOURS, stated_licences
from muomni.data.shard_format import SPLITS
from muomni.fusion import lay_out
from muomni.params import Params
from muomni.tokenizer import Tokenizer, render_chat

LEAST = 10
SAMPLES, SAMPLE_LETTERS = 8, 300


def check_conversations(
    config: ConversationsConfig, params: Params, script: str, tokenizer: Tokenizer | None, workers: int
) -> Section:
    """Read all conversations as stage conversation-shards will, and tell what is there.

    Args:
        config: section ``conversations``, of a source of one's own.
        params: the whole file.
        script: that letters are expected in.
        tokenizer: to ask, and to count positions with, if there is one.
        workers: processes.

    Raises:
        UserError: if there is no such source.
    """
    section = Section("conversations", config.source, config.path)
    bad = BadSamples(1.0, "conversations")
    fitting = Fitting(params.images.size_px, params.speech.sample_rate, params.speech.max_seconds)
    found, origins = read_conversations(config.source, config.path, fitting, params.seed, bad, workers, weighed=False)
    section.total = len(found) + len(bad)
    for entry in bad.items:
        section.add("cannot be used", entry["item"], entry["reason"])
    items = {item.id: Item(item.split, _digest(item), said(item, "\n")) for item in found}
    check_copies(section, items)
    exact = {one.item for name, some in section.problems.items() if name.startswith("same item") for one in some}
    check_near_copies(section, {name: item for name, item in items.items() if name not in exact})
    check_words(section, ((item.id, said(item, "\n")) for item in found), script, tokenizer)
    _count(section, found)
    if tokenizer is not None:
        _measure(section, found, tokenizer, 1 + params.fusion.image_grid**2, params.thinker.context)
    _licences(section, origins)
    section.samples = [_sample(item) for item in found[:SAMPLES]]
    return section


def said(item: OwnConversation, between: str, *roles: str) -> str:
    """The texts of a conversation, of all or of one role."""
    some = [m for m in item.messages if not roles or m["role"] in roles]
    return between.join(part["text"] for m in some for part in m["content"] if part["type"] == "text")


def _digest(item: OwnConversation) -> str:
    """Of all that is said, shown and played, the answers too."""
    return hashlib.sha256(f"{item.key} {json.dumps(item.messages, sort_keys=True)}".encode()).hexdigest()


def _count(section: Section, found: list[OwnConversation]) -> None:
    media = Counter(name.rpartition(".")[2] for item in found for name in item.members)
    splits = Counter(item.split for item in found)
    answers = [len(said(item, "", "assistant")) for item in found]
    section.facts |= {
        "conversations": f"{len(found):,} of {section.total:,} can be used",
        "questions of each": numbers(len(item.messages) // 2 for item in found),
        "pictures": f"{media['png']:,}",
        "recordings": f"{media['flac']:,}",
        "characters of the answers of each": numbers(answers),
    }
    section.tables["splits"] = [["name", "conversations"], *([split, splits[split]] for split in SPLITS)]
    section.histograms["characters of the answers of each"] = [float(size) for size in answers]
    if len(found) < LEAST or not splits["train"]:
        section.add("too few", section.address, f"{splits['train']} conversations for training, {len(found)} in all")


def _measure(section: Section, found: list[OwnConversation], tokenizer: Tokenizer, picture: int, context: int) -> None:
    """Count the positions that each conversation takes, and note those that the context has no room for."""
    sizes = []
    for item in found:
        media = [part["member"] for m in item.messages for part in m["content"] if "member" in part]
        positions = [picture if name.endswith(".png") else _states(item.members[name]) for name in media]
        sizes.append(len(lay_out(render_chat(item.messages, tokenizer), tokenizer, positions).ids))
        if sizes[-1] - 1 > context:  # the last one has nothing to predict
            reason = f"{sizes[-1]:,} positions, more than thinker.context ({context:,})"
            section.add("too long for the context", item.id, reason, sizes[-1])
    section.facts["positions of each"] = numbers(sizes)


def _states(recording: bytes) -> int:
    """Positions of a recording: one for each 8 frames of a hundredth of a second."""
    return -(-int(soundfile.info(io.BytesIO(recording)).duration * 100) // 8)


def _licences(section: Section, origins: list[Origin]) -> None:
    told = []
    for origin in origins:
        stated = [origin.licence] if origin.licence != YOURS else []
        stated += stated_licences(Folder(origin.address, "conversations.path"))
        told += stated
        if not stated:
            section.add("no licence is stated", origin.address, "no LICENSE file")
    section.facts["licence"] = "; ".join(told) or "none is stated"


def _sample(item: OwnConversation) -> Sample:
    """Its text, with the first picture or recording."""
    text = said(item, " / ")[:SAMPLE_LETTERS]
    for name, data in item.members.items():
        return Sample(item.id, text, "audio/flac" if name.endswith(".flac") else "image/png", data)
    return Sample(item.id, text)
