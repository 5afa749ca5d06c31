"""What is in recordings of one's own."""

import io
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from muomni.check.copies import Item, check_copies, check_near_copies
from muomni.check.findings import Sample, Section
from muomni.check.sounds import Measured, measure
from muomni.check.words import check_words, numbers, unheard
from muomni.data.badsamples import BadSamples
from muomni.data.own_speech import YOURS, SpeechSource, read_sources, stated_licences
from muomni.data.processes import executor, map_lists
from muomni.data.speech_corpus import CHUNK, SPLITS, SpeechConfig
from muomni.data.speech_files import SpeechFolder, read_sound
from muomni.data.speech_sources import SOUNDS
from muomni.data.utterances import Utterance
from muomni.data.voices import speakable
from muomni.errors import UserError
from muomni.sound import load_audio
from muomni.tokenizer import Tokenizer
from muomni.train.b_audio_encoder import fits

CLIPPED = 0.001  # of the samples at full scale, from which on it is heard
QUIET = 0.01  # of full scale: -40 dB
LEAST_MINUTES = 10.0
SAMPLE_SECONDS = 6.0
SAMPLES = 8


def check_speech(
    cfg: SpeechConfig, seed: int, slots: int, script: str, tokenizer: Tokenizer | None, workers: int
) -> Section:
    """Read all recordings as the stages will, and tell what is there.

    Args:
        cfg: section ``speech``, of a source of one's own.
        seed: the project's, for the splits.
        slots: that the CTC head has for each state.
        script: that letters are expected in.
        tokenizer: to ask, if there is one.
        workers: processes.

    Raises:
        UserError: if there is no such source, or it lacks a file or column.
    """
    section = Section("speech", cfg.source, cfg.path)
    bad = BadSamples(1.0, "speech")
    parts = cfg.parts()
    # What a weight leaves out of training is looked at as well.
    mine = [part.model_copy(update={"weight": 1.0}) for part in parts if part.source != "embedded"]
    if not mine:
        raise UserError(f"speech.path: {cfg.path}: names no recordings of one's own")
    sources = read_sources(mine, seed, bad, list, f"speech.path: {cfg.path}", states=False)
    wanted = [item for source in sources for item in source.items]
    repeats = [entry for source in sources for entry in source.repeats]
    section.total = len(wanted) + len(bad) + len(repeats)
    for entry in bad.items:
        section.add("cannot be used", entry["item"], entry["reason"])
    for entry in repeats:
        section.add("held-out sentence in training", entry["item"], entry["reason"])
    within = {item.id: source.within for source in sources for item in source.items}
    found = _measured(section, wanted, within, cfg, workers)
    names = dict[str, str]()
    for source in sources:
        names |= {key: f"{source.within}{name}" for key, name in _names(source).items()}
    for item in wanted:
        if item.id in found:
            _judge(section, names[item.id], item, found[item.id], slots, cfg.sample_rate)
    good = [item for item in wanted if item.id in found]
    items = {names[i.id]: Item(i.split, found[i.id].sha256, i.text) for i in good}
    check_copies(section, items, sounds=True)
    check_near_copies(section, items)
    _count(section, good, found)
    check_words(section, ((names[item.id], item.text) for item in good), script, tokenizer)
    licences = []
    for source in sources:
        _unlisted(section, source)
        stated = [source.part.licence] if source.part.licence != YOURS else []
        stated += stated_licences(SpeechFolder(source.part.path).folder)
        licences += [f"{source.within}{one}" for one in stated]
        if not stated:
            section.add("no licence is stated", source.part.path, "no LICENSE file")
    section.facts["licence"] = "; ".join(licences) or "none is stated"
    if cfg.source == "mixture":
        rows = [[s.part.name, s.part.source, len(s.items), s.part.licence] for s in sources]
        section.tables["sources"] = [["name", "source", "recordings", "licence"], *rows]
    if len(mine) < len(parts):
        section.facts["embedded voices"] = "are in the mixture as well, and not looked at"
    section.samples = _samples(section, good, names, found, cfg, seed)
    return section


def _names(source: SpeechSource) -> dict[str, str]:
    """What messages call the recordings, by id: a file that several rows name has a number from the second on."""
    folder = SpeechFolder(source.part.path)
    root = str(folder.folder.local.resolve()) if folder.folder.local is not None else folder.folder.address
    names, seen = dict[str, str](), Counter[str]()
    for item in source.items:
        seen[item.source] += 1
        again = f" ({seen[item.source]})" if seen[item.source] > 1 else ""
        names[item.id] = item.source.removeprefix(f"{root}/") + again
    return names


def _measured(
    section: Section, wanted: list[Utterance], within: Mapping[str, str], cfg: SpeechConfig, workers: int
) -> dict[str, Measured]:
    """Figures of what can be used by id; the rest is noted."""
    heard = [item for item in wanted if speakable(item.text)]
    for item in wanted:
        if not speakable(item.text):
            name = f"{within[item.id]}{item.source}"
            section.add("cannot be used", name, "the text has nothing that can be spoken")
    tasks = [heard[start : start + CHUNK] for start in range(0, len(heard), CHUNK)]
    found = dict[str, Measured]()
    with executor(workers) as pool, tqdm(total=len(heard), desc="speech", unit="recording") as bar:
        for task, results in zip(tasks, map_lists(pool, measure, tasks, cfg), strict=True):
            for item, result in zip(task, results, strict=True):
                if isinstance(result, str):
                    section.add("cannot be used", f"{within[item.id]}{item.source}", result)
                else:
                    found[item.id] = result
            bar.update(len(task))
    return found


def _judge(section: Section, name: str, item: Utterance, about: Measured, slots: int, rate: int) -> None:
    """Note what is wrong with a recording that can be used."""
    if about.clipped > CLIPPED:
        reason = f"{about.clipped:.2%} of its samples are at full scale"
        section.add("clipped", name, reason, about.clipped)
    if about.peak < QUIET:
        section.add("very quiet", name, f"its peak is {20 * math.log10(about.peak):.0f} dB", -about.peak)
    frames = int(about.seconds * 100)  # of the log-mel
    if not fits(item.text, frames, slots):
        reason = f"{len(item.text)} characters in {about.seconds:.2f} s: {item.text!r}"
        section.add("text too long for the sound", name, reason, len(item.text) / about.seconds)
    if letters := unheard(item.text):
        section.add("letters that are not learned", name, f"{' '.join(letters)} in {item.text!r}", len(letters))
    if about.rate < rate:
        section.add("low sample rate", name, f"{about.rate:,} Hz, less than {rate:,}", -about.rate)


def _count(section: Section, good: list[Utterance], found: Mapping[str, Measured]) -> None:
    seconds = {item.id: found[item.id].seconds for item in good}
    hours = sum(seconds.values()) / 3600
    by_speaker, by_split = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for item in good:
        by_speaker[item.speaker].append(seconds[item.id])
        by_split[item.split].append(seconds[item.id])
    section.facts |= {
        "recordings": f"{len(good):,} of {section.total:,} can be used",
        "hours": f"{hours:.3f}",
        "seconds of a recording": numbers(seconds.values()),
        "speakers": len(by_speaker),
        "sample rates": _counted(about.rate for about in found.values()),
        "channels": _counted(about.channels for about in found.values()),
    }
    head = ["name", "recordings", "minutes"]
    most = sorted(by_speaker.items(), key=lambda entry: -sum(entry[1]))
    section.tables["speakers"] = [head, *([name, len(s), round(sum(s) / 60, 2)] for name, s in most)]
    rows = [[split, len(by_split[split]), round(sum(by_split[split]) / 60, 2)] for split in SPLITS]
    section.tables["splits"] = [head, *rows]
    section.histograms["seconds"] = list(seconds.values())
    section.histograms["characters a second"] = [len(item.text) / seconds[item.id] for item in good]
    section.histograms["peak, dB"] = [20 * math.log10(max(about.peak, 1e-5)) for about in found.values()]
    for split in SPLITS:
        if not by_split[split]:
            section.add("split is empty", split, "no recording that can be used")
    if hours * 60 < LEAST_MINUTES:
        section.add("too few", section.address, f"{hours * 60:.1f} minutes, less than {LEAST_MINUTES:g}")


def _counted(values: Any) -> str:
    return ", ".join(f"{value:,} ({count:,})" for value, count in Counter(values).most_common(8)) or "none"


def _unlisted(section: Section, source: SpeechSource) -> None:
    folder, listed = SpeechFolder(source.part.path), {item.source for item in source.items}
    for name in folder.below(*SOUNDS):
        if folder.inside(name) not in listed:
            section.add("sound without a text", f"{source.within}{name}", "no row names it")


def _samples(
    section: Section,
    good: list[Utterance],
    names: Mapping[str, str],
    found: Mapping[str, Measured],
    cfg: SpeechConfig,
    seed: int,
) -> list[Sample]:
    """The worst of each problem, and some that are drawn."""
    by_name = {names[item.id]: item for item in good}
    chosen = {one.item: problem for problem in section.problems for one in section.worst(problem, 2)}
    drawn = random.Random(seed).sample(good, min(SAMPLES, len(good)))
    labels = {name: label for name, label in chosen.items() if name in by_name}
    labels = {**{names[item.id]: "" for item in drawn}, **labels}
    made = []
    for name, label in labels.items():
        item = by_name[name]
        about = f"{name}, {item.speaker}, {found[item.id].seconds:.1f} s" + (f": {label}" if label else "")
        try:
            wave = load_audio(read_sound(item.source), cfg.sample_rate)[: int(SAMPLE_SECONDS * cfg.sample_rate)]
        except UserError:  # it was there a moment ago
            continue
        encoded = io.BytesIO()
        soundfile.write(encoded, np.clip(wave, -1, 1), cfg.sample_rate, format="MP3")
        made.append(Sample(about, item.text, "audio/mpeg", encoded.getvalue()))
    return made
