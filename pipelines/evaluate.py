"""Stage evaluate: every trained part and the whole model on the test splits, into ``metrics`` and ``plots``.

Nothing else reads the test splits. ``metrics/summary.json`` has the headline figures and a file for each sense all of
them; ``metrics/samples`` can be looked at and listened to.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muomni.checkpoint import weights_sha256
from muomni.config import section
from muomni.data.files import atomic_write_json, atomic_write_text, check_manifest
from muomni.data.pictures import Picture, load_pictures
from muomni.data.shards import read_index, read_shards
from muomni.data.speech import load_recordings
from muomni.data.tokens import TokenDataset
from muomni.device import DeviceConfig, pick_device
from muomni.evaluate.config import EvaluateConfig, first
from muomni.evaluate.hearing import score_hearing
from muomni.evaluate.held_out import held_out
from muomni.evaluate.judge import find_judge
from muomni.evaluate.language import score_language
from muomni.evaluate.listening import listen
from muomni.evaluate.parts import Parts, load_parts
from muomni.evaluate.seeing import Seen, score_seeing, see
from muomni.evaluate.summary import summarise, table
from muomni.evaluate.whole import answer_all
from muomni.passport.measured import MEASURED, PREFIXES
from pipelines.evaluation_files import Evaluation, recorded_questions, write_plots, write_samples
from pipelines.run import main, new_dir

TOKENS = Path("data/tokens")
MELS, IMAGES = Path("data/shards/mels"), Path("data/shards/images")
CONVERSATIONS, SPEECH = Path("data/shards/conversations"), Path("data/corpus/speech")
CHECKPOINTS, CURVES = Path("checkpoints"), Path("metrics/train")
METRICS, PLOTS, SAMPLES = Path("metrics"), Path("plots"), Path("metrics/samples")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say on standard error what is done, and how long it took."""
    begin = time.monotonic()
    yield
    print(f"evaluate: {what}: {time.monotonic() - begin:.1f} s", file=sys.stderr)


def language(parts: Parts, cfg: EvaluateConfig) -> dict[str, Any]:
    """Stage A's and the whole model's Thinker on unseen text, and the baselines."""
    scores: dict[str, Any] = score_language(
        {"thinker": parts.thinker, "omni": parts.omni.thinker},
        TokenDataset(TOKENS, "train"),
        TokenDataset(TOKENS, "test"),
        parts.tokenizer,
        order=cfg.ngram_order,
        context=cfg.context,
        stride=cfg.stride,
        most=cfg.text_tokens,
        seed=cfg.seed,
    )
    return scores | {"ngram_order": cfg.ngram_order}


def seeing(parts: Parts, cfg: EvaluateConfig) -> tuple[dict[str, Any], Seen, list[Picture]]:
    """Stage C on unseen pictures; the names are those of its training."""
    names = sorted({thing["name"] for s in read_shards(IMAGES, "train") for thing in s["json"]["objects"]})
    pictures = first(load_pictures(IMAGES, "test"), cfg.pictures)
    seen = see(parts.vision_encoder, parts.heads, parts.thinker, parts.tokenizer, names, pictures)
    return {**score_seeing(seen), "names": len(names), "captions": seen.captions}, seen, pictures


def evaluated(checkpoints: Path) -> dict[str, str]:
    """The hashes of the weights that the figures are of, by component."""
    return {name: weights_sha256(checkpoints / name) for name in PREFIXES}


def run() -> None:
    """Evaluate, write everything, print the summary."""
    cfg, device = section(EvaluateConfig, "evaluate"), section(DeviceConfig, "device")
    chosen = pick_device(device).device
    judge = find_judge(cfg.judge)
    if judge is None and cfg.judge == "auto":
        print("note: no judge of speech, so no error rates of it; pip install 'muomni[judge]'", file=sys.stderr)
    what = held_out(TOKENS, [MELS, IMAGES, CONVERSATIONS], cfg)
    with timed("checkpoints"):
        parts = load_parts(CHECKPOINTS, chosen)
    scores: dict[str, dict[str, Any]] = {}
    with timed("language"):
        scores["language"] = language(parts, cfg)
    with timed("hearing"):
        recordings = first(load_recordings(MELS, "test"), cfg.recordings)
        trained = read_index(MELS).get("speakers", {}).get("train", {}).keys()
        scores["hearing"] = score_hearing(parts.audio_encoder, parts.ctc, recordings, cfg.speaker, cfg.seed, trained)
    with timed("seeing"):
        scores["seeing"], seen, pictures = seeing(parts, cfg)
    with timed("speech"):
        check_manifest(SPEECH)
        listened = listen(parts, cfg, judge, SPEECH, MELS)
        scores["speech"] = listened.scores | {
            "judge": judge.name if judge else "off" if cfg.judge == "off" else "not installed"
        }
    with timed("the whole model"):
        answered = answer_all(parts, cfg, judge, CONVERSATIONS)
        scores["omni"] = answered.scores
    summary = summarise(scores)
    recorded = recorded_questions(answered, CONVERSATIONS, SPEECH)
    result = Evaluation(scores, summary, seen, pictures, listened, answered, parts.omni.cfg.mel.sample_rate, recorded)
    with timed("plots and samples"):
        with new_dir(PLOTS) as made:
            write_plots(result, CURVES, made)
        with new_dir(SAMPLES) as made:
            write_samples(result, made)
    for name, values in scores.items():
        atomic_write_json(METRICS / f"{name}.json", values)
    atomic_write_json(METRICS / "held_out.json", what)
    atomic_write_json(METRICS / MEASURED, {"weights_sha256": evaluated(CHECKPOINTS)})
    atomic_write_text(METRICS / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")  # in its order
    print(table(summary))


if __name__ == "__main__":
    main("evaluate", run)
