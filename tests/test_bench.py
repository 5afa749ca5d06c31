"""`muomni bench` and `muomni plan`: real measurements of the smallest profile, and what they are made of."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from muomni.bench.clock import interleave, ratio
from muomni.bench.components import component_cases, thinker_step
from muomni.bench.planning import Planner, StagePlan, changes, halves, line, render
from muomni.bench.point import Shape, in_process
from muomni.bench.rehearsal import Rehearsal
from muomni.bench.scaling import draw
from muomni.bench.serving import read_bytes
from muomni.bench.tasks import STAGES, build, settings, used, with_settings
from muomni.bench.trial import Trial, typical
from muomni.cli import main
from muomni.device import pick_device
from muomni.errors import UserError
from muomni.params import Params, read_params
from muomni.thinker import Thinker

SMOKE = Path("profiles/smoke.yaml")
ONE = Trial(batch=2, seconds=0.3, update=0.1, waiting=0.0, making=0.01, peak_mb=700.0)


@pytest.fixture(scope="module")
def smoke() -> Params:
    return read_params(SMOKE)


@pytest.fixture(scope="module")
def rehearsed(smoke: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    Rehearsal(smoke, folder).write()
    return folder / "data"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_can_be_rehearsed(stage: str, smoke: Params, rehearsed: Path) -> None:
    task = build(smoke, stage, rehearsed, pick_device(smoke.device))
    batch = task.batch(0, 0, torch.Generator().manual_seed(0))
    loss, values = task.loss(batch, 0)
    assert torch.isfinite(loss) and values
    loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for m in task.modules.values() for p in m.parameters())


def test_a_profile_without_a_trained_vocoder_has_no_stage_for_it(smoke: Params) -> None:
    assert used(smoke) == list(STAGES)
    assert "d-vocoder" not in used(read_params("profiles/base.yaml"))


def test_cases_run_and_count_what_they_do(smoke: Params) -> None:
    device = pick_device(smoke.device)
    cases = component_cases(smoke, device)
    assert cases["vision encoder step"].amount == 8 and cases["audio encoder step"].amount == 8 * 400
    for name in ("vision encoder step", "codec, frames to codes"):
        cases[name].run()
    case = thinker_step(smoke, 512, device, batch=2, length=16)
    thinker = Thinker(smoke.thinker.model_copy(update={"vocab_size": 512}))
    weights = read_bytes(thinker, 1) - sum(w.numel() for w in thinker.parameters() if w.ndim == 1)
    attention = smoke.thinker.n_layers * smoke.thinker.d_model * 16
    assert case.operations == pytest.approx(6 * 32 * (weights + attention))


def test_interleaved_times_and_their_ratio() -> None:
    order: list[str] = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.0, least=3)
    assert order == ["a", "b"] * 4 and all(len(t) == 3 for t in times.values())  # the first round is not timed
    assert ratio([1.0, 2.0, 30.0], [2.0, 2.0, 10.0]) == 1.0


def test_peak_memory_sees_what_is_freed_again() -> None:
    """In a process of its own: what earlier tests left with the allocator would be used again."""
    code = "import torch; from muomni.bench.clock import peak_mb; print(peak_mb(lambda: torch.ones(50 << 18).sum()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 45 < float(done.stdout) < 90


def test_a_batch_is_halved_while_it_is_even_and_larger_ones_lie_on_the_line() -> None:
    assert halves(24) == [24, 12, 6, 3] and halves(1) == [1]
    other = replace(ONE, batch=4, seconds=0.5, peak_mb=900.0)
    found = line(ONE, other, 16)
    assert found.seconds == pytest.approx(0.5 + 0.1 * 12) and found.peak_mb == pytest.approx(900 + 100 * 12)
    assert found.extrapolated and not line(ONE, other, 4).extrapolated


def test_steps_that_differ_count_by_their_share() -> None:
    """As in stage E, where a median would not see the steps that are heavier."""
    assert typical([1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 9.0, 5.0], 4) == (1 + 1 + 5 + 5) / 4
    assert typical([3.0, 1.0, 50.0], 1) == 3.0


class Guessed(Planner):
    """A planner whose machine takes a second and 100 MB a sample, half of both with checkpointing."""

    def measured(self, stage: str, batch: int, checkpointing: bool) -> dict[int, Trial]:
        part = 0.5 if checkpointing else 1.0
        return {n: replace(ONE, batch=n, seconds=n * part, peak_mb=500 + 100 * n * part) for n in halves(batch)}


def planned(p: Params, stage: str, budget: float) -> StagePlan:
    return Guessed(p, SMOKE, Path(), budget, cap=False).plan(stage)


def test_the_plan_keeps_the_global_batch_within_the_budget(smoke: Params) -> None:
    p = with_settings(smoke, "a-thinker", batch_size=32, accumulate=2, steps=100)
    plenty = planned(p, "a-thinker", 10_000)
    assert (plenty.batch, plenty.accumulate, plenty.fits, plenty.checkpointing) == (32, 2, True, False)
    assert plenty.step_seconds == pytest.approx(2 * 32 + 0.1) and plenty.hours == pytest.approx(100 * 64.1 / 3600)
    tight = planned(p, "a-thinker", 1500)
    assert (tight.batch, tight.accumulate, tight.limit) == (8, 8, "memory")
    assert "a_thinker.batch_size: 8" in changes(p, [tight]) and changes(p, [plenty]) == []
    least = planned(p, "a-thinker", 600)  # one sample needs 600 MB, but 5 % are kept free
    assert (least.batch, least.accumulate, least.checkpointing, least.fits) == (1, 64, True, True)
    assert not planned(p, "a-thinker", 300).fits


def test_a_loss_over_the_whole_batch_is_not_cut_into_micro_batches(smoke: Params) -> None:
    p = with_settings(smoke, "c-vision-encoder", batch_size=32)
    found = planned(p, "c-vision-encoder", 2500)
    assert (found.batch, found.accumulate, found.checkpointing, found.fits) == (32, 1, True, True)
    assert not planned(p, "c-vision-encoder", 1500).fits


def test_the_plan_says_what_is_too_much_and_what_it_costs(smoke: Params) -> None:
    p = with_settings(smoke, "a-thinker", batch_size=32, steps=3600)
    plans = [planned(p, "a-thinker", 300)]
    text = render(plans, 300, price=2.0)
    assert "(too much)" in text and f"{plans[0].hours * 2:.2f}" in text and "| Cost |" in text
    assert "Cost" not in render(plans, 300, None)


def test_plan_then_compare_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = SMOKE.resolve()
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--compare"]) == 2
    assert "no plan yet" in capsys.readouterr().err
    assert main(["plan", "--params", str(params), "--stage", "d-codec", "--price", "3"]) == 0
    assert "d-codec" in capsys.readouterr().out
    plan = json.loads(Path(".muomni/plan.json").read_text())["stages"][0]
    assert plan["stage"] == "d-codec" and plan["step_seconds"] > 0 and plan["peak_mb"] > 100
    assert main(["plan", "--compare"]) == 2
    assert "no training since" in capsys.readouterr().err
    folder = Path("checkpoints/codec")
    folder.mkdir(parents=True)
    taken = plan["step_seconds"] * 60 * 2
    card = {"seconds": taken, "metrics": {"steps": 60, "peak_memory_mb": plan["peak_mb"] * 4}}
    (folder / "card.json").write_text(json.dumps(card))
    assert main(["plan", "--compare"]) == 0
    out = capsys.readouterr().out
    assert "| 0.50 |" in out and "| 0.25 |" in out


def test_bench_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    args = ["bench", "--params", str(SMOKE), "--seconds", "0.1", "--only", "generation", "--only", "reading"]
    assert main([*args, "--json", str(file)]) == 0
    found, out = json.loads(file.read_text()), capsys.readouterr().out
    assert found["limits"]["bandwidth"] > 0 and found["machine"]["threads"] >= 1
    rate = found["generation"]["16 x 256 tokens, vocabulary 5,000, int8"]["rate"]
    assert rate > 0 and f"{rate:,.0f} tokens/s" in out and "components" not in found
    assert statistics.median([found["reading"]["log-mel"]["rate"]]) > 1


def test_a_point_of_the_curves_is_measured_in_a_process_of_its_own() -> None:
    small, large = (in_process(SMOKE, Shape(batch, 64, 512, 64, 2)) for batch in (1, 256))
    assert large.peak_mb > small.peak_mb > 0 and large.seconds > small.seconds > 0
    with pytest.raises(UserError, match="could not be measured.*no package 'omni'"):
        in_process(SMOKE, Shape(1, 16, 512, 64, 1), checkout=Path("docs"))


def test_curves_are_drawn(tmp_path: Path) -> None:
    points = [{"value": 1, "seconds": 0.1, "peak_mb": 5.0}, {"value": 2, "seconds": 0.2, "peak_mb": 9.0}]
    draw({"batch": points, "layers": points}, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 400


def test_bad_arguments_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for args, words in (
        (["bench", "--only", "componets"], "did you mean 'components'"),
        (["bench", "--against", str(tmp_path)], "no package 'omni'"),
        (["plan", "--stage", "a-thinkr"], "did you mean 'a-thinker'"),
        (["plan", "--profile", "big"], "profile 'big'"),
    ):
        assert main(args) == 2
        assert words in capsys.readouterr().err


def test_settings_of_a_stage(smoke: Params) -> None:
    changed = with_settings(smoke, "e-omni", batch_size=7)
    assert settings(changed, "e-omni").batch_size == 7 and settings(smoke, "e-omni").batch_size != 7
