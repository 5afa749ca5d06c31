"""All measurements of `muomni bench`."""

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from muomni.bench.clock import interleave, ratio
from muomni.bench.components import Case, component_cases, thinker_step
from muomni.bench.machine import describe, limits
from muomni.bench.other import Other
from muomni.bench.point import Shape
from muomni.bench.point import in_process as in_own_process
from muomni.bench.rehearsal import Rehearsal
from muomni.bench.scaling import curves
from muomni.bench.serving import (
    TOKENS,
    WIDTHS,
    decoders,
    first_answer,
    generation,
    random_model,
    rates,
    read_bytes,
    reading_cases,
    speech_cases,
)
from muomni.bench.tasks import STAGES, settings, used
from muomni.bench.trial import in_process
from muomni.data.files import read_jsonl
from muomni.device import Device
from muomni.params import Params, read_params
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer

ORIGINAL = (32, 512, 32_000)  # batch, tokens, vocabulary: what the original's text stage takes by default
VOCABULARIES = (5000, 32_000)
REPLIES = (1, 16)  # written together
CORPUS, TOKENIZER = Path("data/corpus/text/valid.jsonl"), Path("data/tokenizer")
PARTS = ("components", "memory", "stages", "generation", "speech", "reading")
EXTRA = ("scaling",)  # only where it is asked for: it takes minutes


def compare(ours: Mapping[str, Case], theirs: Mapping[str, Case], seconds: float) -> dict[str, dict[str, Any]]:
    """Time each case, and beside it, in turn, the same of the other checkout."""
    found: dict[str, dict[str, Any]] = {}
    for name, case in ours.items():
        runs: dict[str, Callable[[], object]] = {"ours": case.run}
        if name in theirs:
            runs["theirs"] = theirs[name].run
        times = interleave(runs, seconds)
        median = statistics.median(times["ours"])
        found[name] = {"seconds": median, "rate": case.amount / median, "unit": case.unit, "runs": len(times["ours"])}
        if "theirs" in times:
            found[name] |= {
                "other_seconds": statistics.median(times["theirs"]),
                "against": ratio(times["ours"], times["theirs"]),
            }
    return found


def components(
    p: Params, device: Device, other: Other | None, limit: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """Training steps of single components.

    Args:
        p: of the profile.
        device: where.
        other: another checkout, to time in turn with this one, or None.
        limit: what the machine reaches, operations a second by ``bf16`` and ``fp32`` (`muomni.bench.machine.limits`).
        seconds: for each component, about.

    Returns:
        By component what `compare` finds, and ``of_limit``: the share of the limit that its matrix products reach.
    """
    cases = component_cases(p, device)
    found = compare(cases, other.cases(p, device) if other else {}, seconds)
    fastest = limit["bf16" if device.bf16 else "fp32"]
    for name, entry in found.items():
        if cases[name].operations:
            entry["of_limit"] = cases[name].operations / entry["seconds"] / fastest
    return found


def useful_share(lines: Iterable[str], tokenizer: Tokenizer, context: int) -> float:
    """Share of the other checkout's batches that is text: each line is a row, cut or filled to the context."""
    sizes = [min(context, 1 + len(tokenizer.encode(line))) for line in lines if line.strip()]
    return statistics.mean(sizes) / context


def documents(p: Params, device: Device, other: Other, tokenizer: Path, seconds: float) -> dict[str, Any]:
    """Useful tokens a second over the same documents, at the default context of both: all that counts in the end.

    Args:
        p: of the profile.
        device: where.
        other: the other checkout, which fills each line up to its context.
        tokenizer: folder of the one that both sides' tokens are counted with.
        seconds: for each side, about.

    Raises:
        UserError: if the text corpus or its tokenizer is not there.
    """
    rows = list(read_jsonl(CORPUS, "corpus-text"))
    lines = [line for row in rows for line in row["text"].split("\n")]
    share = useful_share(lines, Tokenizer(tokenizer), ORIGINAL[1])
    vocabulary, batch = p.thinker.vocab_size, 8
    ours = {"useful tokens": thinker_step(p, vocabulary, device, batch, p.a_thinker.context)}
    theirs = {"useful tokens": other.thinker_step(p, vocabulary, device, batch, ORIGINAL[1])}
    found = compare(ours, theirs, seconds)["useful tokens"]
    length = p.a_thinker.context / ORIGINAL[1]
    found |= {"other_useful_share": share, "against": found["against"] / length * share, "lines": len(lines)}
    return {f"useful tokens of {len(rows)} documents": found}


def memory(params: Path, against: Path | None) -> dict[str, Any]:
    """Peak memory of a step of the text stage at the original's default batch, each in a process of its own."""
    batch, length, vocabulary = ORIGINAL
    cfg = read_params(params).thinker
    shape = Shape(batch, length, vocabulary, cfg.d_model, cfg.n_layers)
    entry: dict[str, Any] = {"peak_mb": in_own_process(params, shape).peak_mb}
    if against:
        other = in_own_process(params, shape, against).peak_mb
        entry |= {"other_mb": other, "against": entry["peak_mb"] / other}
    return {f"memory of a Thinker step, {batch} x {length}, vocabulary {vocabulary:,}": entry}


def stages(p: Params, params: Path, data: Path, seconds: float) -> dict[str, Any]:
    """A few steps of every stage on the rehearsal's data."""
    found = {}
    for stage in used(p):
        cfg = settings(p, stage)
        trial = in_process(params, stage, data, seconds, cfg.batch_size, cfg.checkpointing)
        if trial is None:
            found[stage] = {"rate": 0.0, "unit": "out of memory", "waiting": 0.0, "peak_mb": float("nan")}
            continue
        rate = trial.batch / (trial.seconds + trial.update)
        found[stage] = asdict(trial) | {"rate": rate, "unit": STAGES[stage][1]}
        if stage == "a-thinker":  # nothing in its batches is padding
            found[stage] |= {"rate": rate * p.a_thinker.context, "unit": "tokens"}
    return found


def generations(
    p: Params, device: Device, other: Other | None, limit: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """Decoding with the cache: at two sizes of vocabulary, alone and in a batch, in each kind of weights.

    Args:
        p: of the profile.
        device: where.
        other: another checkout, to time in turn with this one, or None.
        limit: what the machine reaches, of which ``bandwidth`` counts, bytes a second (`muomni.bench.machine.limits`).
        seconds: for each kind of weights, about.

    Returns:
        By case ``rate`` in tokens a second of all replies together, ``of_limit``, the share of the bandwidth that
        reading the weights once a token takes, and ``against`` where there is another checkout.
    """
    found: dict[str, Any] = {}
    for vocabulary, batch in itertools.product(VOCABULARIES, REPLIES):
        torch.manual_seed(p.seed)
        thinker = Thinker(p.thinker.model_copy(update={"vocab_size": vocabulary})).to(device.device).eval()
        kinds = decoders(thinker, device)
        runs: dict[str, Callable[[], object]] = {
            kind: generation(decoder, batch, TOKENS).run for kind, decoder in kinds.items()
        }
        if other:
            runs["theirs"] = other.generation(p, vocabulary, batch, TOKENS, device).run
        with torch.inference_mode():
            times = interleave(runs, seconds)
        for kind in kinds:
            rate = batch * TOKENS / statistics.median(times[kind])
            entry: dict[str, Any] = {"rate": rate, "unit": "tokens", "runs": len(times[kind])}
            entry["of_limit"] = rate / batch * read_bytes(thinker, WIDTHS[kind]) / limit["bandwidth"]
            if other:
                entry["against"] = ratio(times[kind], times["theirs"])
            found[f"{batch} x {TOKENS} tokens, vocabulary {vocabulary:,}, {kind}"] = entry
    return found


def measure(
    p: Params,
    params: Path,
    device: Device,
    against: Path | None,
    parts: set[str],
    seconds: float,
    tell: Callable[[str], object],
) -> dict[str, Any]:
    """Measure.

    Args:
        p: of the profile.
        params: its file.
        device: where.
        against: another checkout.
        parts: some of `PARTS` and `EXTRA`.
        seconds: for each figure, about.
        tell: is told what comes next.

    Raises:
        UserError: if the other checkout cannot be used.
    """
    other = Other(against) if against else None
    tell("limits of the machine")
    limit = limits(device)
    found: dict[str, Any] = {"profile": p.profile, "machine": describe(device), "limits": limit}
    if "components" in parts:
        tell("components")
        found["components"] = components(p, device, other, limit, seconds)
        if other and CORPUS.is_file() and TOKENIZER.is_dir():
            found["components"] |= documents(p, device, other, TOKENIZER, seconds)
        elif other:
            tell(f"useful tokens: left out, there is no {CORPUS} or {TOKENIZER}; run `dvc repro tokenizer`")
    if "memory" in parts:
        tell("memory of the text stage")
        found["memory"] = memory(params, against)
    if "scaling" in parts:
        found["scaling"] = curves(params, seconds, tell)
    with tempfile.TemporaryDirectory(prefix="muomni-bench-") as folder:
        if parts & {"stages", "generation", "speech", "reading"}:
            tell("data to rehearse with")
            Rehearsal(p, Path(folder)).write()
        data = Path(folder) / "data"
        if "stages" in parts:
            tell("stages")
            found["stages"] = stages(p, params, data, seconds)
        if parts & {"generation", "speech", "reading"}:
            tokenizer, model = Tokenizer(data / "tokenizer"), random_model(p, device)
        if "generation" in parts:
            tell("generation")
            found["generation"] = generations(p, device, other, limit, seconds)
            found["answer"] = first_answer(model, tokenizer)
        if "speech" in parts:
            tell("speech")
            found["speech"] = rates(speech_cases(model, device), seconds)
        if "reading" in parts:
            tell("reading")
            found["reading"] = rates(reading_cases(p, tokenizer, data), seconds)
    return json.loads(json.dumps(found))
