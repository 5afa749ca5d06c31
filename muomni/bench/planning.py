"""What training a profile takes on this machine, found out before it starts (`muomni plan`)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muomni.bench.tasks import STAGES, WHOLE, settings
from muomni.bench.trial import Trial, in_process
from muomni.checkpoint import CARD
from muomni.checkpoint import STAGES as FOLDER_STAGES
from muomni.data.files import read_json
from muomni.errors import UserError
from muomni.params import Params

FOLDERS = {stage: folder for folder, stage in FOLDER_STAGES.items()}
QUICK = 1.5  # seconds that a trial's steps may take before smaller batches are tried in place of the wanted one
SECONDS = 1.0  # of a trial
ROOM = 0.95  # share of the budget that is planned with


@dataclass(frozen=True)
class StagePlan:
    """How to train a stage here.

    Attributes:
        stage: its name.
        batch, accumulate: samples in a micro-batch and micro-batches a step.
        checkpointing: whether activations are computed again in the backward pass.
        steps: of the training.
        step_seconds: of one step.
        hours: of all steps, without evaluations.
        rate: samples, or tokens, a second.
        unit: what is counted.
        peak_mb: memory at the peak.
        waiting: share of the time spent waiting for data.
        limit: what limits it, in words.
        extrapolated: whether the batch was too slow to try, so that smaller ones stand for it.
        fits: whether the peak is within the budget.
    """

    stage: str
    batch: int
    accumulate: int
    checkpointing: bool
    steps: int
    step_seconds: float
    hours: float
    rate: float
    unit: str
    peak_mb: float
    waiting: float
    limit: str
    extrapolated: bool
    fits: bool


def line(one: Trial, other: Trial, batch: int) -> Trial:
    """What a batch would take by the straight line through two smaller ones.

    Time and memory grow with the batch from what is there anyway: libraries, weights, optimisers.
    """

    def at(name: str) -> float:
        low, high = getattr(one, name), getattr(other, name)
        slope = max(0.0, (high - low) / (other.batch - one.batch))
        return float(high + slope * (batch - other.batch))

    return replace(
        other,
        batch=batch,
        seconds=at("seconds"),
        making=at("making"),
        peak_mb=at("peak_mb"),
        extrapolated=batch > other.batch,
    )


def halves(batch: int) -> list[int]:
    """A batch, its half, its quarter, and so on, as long as they are whole."""
    found = [batch]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found


class Planner:
    """Tries the stages of a profile.

    Args:
        p: of the profile.
        params: its file.
        data: a data set, made up or real.
        budget_mb: memory to keep within.
        cap: whether the budget is a cap on a GPU's memory, so that a trial over it fails.
    """

    def __init__(self, p: Params, params: Path, data: Path, budget_mb: float, cap: bool) -> None:
        self.p, self.params, self.data, self.budget_mb, self.cap = p, params, data, budget_mb, cap

    def trial(self, stage: str, batch: int, checkpointing: bool) -> Trial | None:
        """A few steps at a batch; None if memory did not do."""
        memory = self.budget_mb / 1024 if self.cap else None
        return in_process(self.params, stage, self.data, SECONDS, batch, checkpointing, memory)

    def fits(self, trial: Trial) -> bool:
        """Whether a trial kept within the budget."""
        return trial.peak_mb <= ROOM * self.budget_mb

    def measured(self, stage: str, batch: int, checkpointing: bool) -> dict[int, Trial]:
        """Trials of a batch and its halves, largest first: measured, or by a line where that would take long."""
        sizes = halves(batch)
        if self.cap:  # a GPU's batch takes no long time, and one that does not fit fails
            for size in sizes[:1] if stage in WHOLE else sizes:
                trial = self.trial(stage, size, checkpointing)
                if trial is not None and self.fits(trial):
                    return {size: trial}
            return {}
        small = max(1, batch // 8) if len(sizes) > 3 else sizes[-1]
        first = self.trial(stage, small, checkpointing)
        if first is None:
            return {}
        if small == batch:
            return {batch: first}
        if 5 * first.seconds * batch / small <= 2 * QUICK:
            found = {small: first}
            for size in sizes:
                if size > small and (trial := self.trial(stage, size, checkpointing)) is not None:
                    found[size] = trial
                    if self.fits(trial):
                        break
            return dict(sorted(found.items(), reverse=True))
        second = self.trial(stage, 2 * small, checkpointing)
        if second is None:
            return {small: first}
        return {size: line(first, second, size) for size in sizes if size >= small}

    def plan(self, stage: str) -> StagePlan:
        """The largest micro-batch within the budget with the same global batch; checkpointing if nothing else fits.

        Raises:
            UserError: if not even one sample could be computed.
        """
        cfg = settings(self.p, stage)
        tried: dict[int, Trial] = {}
        for checkpointing in sorted({cfg.checkpointing, True}):
            tried = self.measured(stage, cfg.batch_size, checkpointing)
            if stage in WHOLE:
                tried = {size: trial for size, trial in tried.items() if size == cfg.batch_size}
            for trial in tried.values():
                if self.fits(trial):
                    return self.made(stage, trial, checkpointing, True)
        if not tried:
            raise UserError(f"{stage}: a step does not fit {self.budget_mb / 1024:.1f} GB; make the model smaller")
        least = min(tried.values(), key=lambda trial: trial.peak_mb)
        return self.made(stage, least, True, False)

    def made(self, stage: str, trial: Trial, checkpointing: bool, fits: bool) -> StagePlan:
        """The plan that a trial stands for."""
        cfg = settings(self.p, stage)
        parts = cfg.batch_size // trial.batch
        computing = max(trial.seconds, trial.making)  # the next batch is made meanwhile
        step = cfg.accumulate * parts * computing + trial.update
        whole = cfg.batch_size * cfg.accumulate
        unit = STAGES[stage][1]
        rate = whole / step
        if stage == "a-thinker":
            rate, unit = rate * self.p.a_thinker.context, "tokens"
        if trial.making > trial.seconds:
            limit = "making batches"
        elif trial.update > 0.3 * step:
            limit = "the optimisers"
        elif parts > 1 or (checkpointing and not cfg.checkpointing):
            limit = "memory"
        else:
            limit = "computing"
        waiting = max(trial.waiting, 1 - trial.seconds / computing)
        return StagePlan(
            stage,
            trial.batch,
            cfg.accumulate * parts,
            checkpointing,
            cfg.steps,
            step,
            cfg.steps * step / 3600,
            rate,
            unit,
            trial.peak_mb,
            waiting,
            limit,
            trial.extrapolated,
            fits,
        )


def render(plans: list[StagePlan], budget_mb: float, price: float | None) -> str:
    """The plan as Markdown."""
    head = ["Stage", "Batch", "Checkpointing", "Peak MB", "Rate", "Steps", "Hours", "Limited by"]
    rows = []
    for plan in plans:
        batch = f"{plan.batch}" if plan.accumulate == 1 else f"{plan.batch} x {plan.accumulate}"
        peak = f"{plan.peak_mb:,.0f}" + ("" if plan.fits else " (too much)")
        rate = f"{plan.rate:,.0f} {plan.unit}/s" if plan.rate >= 10 else f"{plan.rate:.2g} {plan.unit}/s"
        cells = [plan.stage, batch, "yes" if plan.checkpointing else "no", peak, rate, f"{plan.steps:,}"]
        cells += [f"{plan.hours:.3g}", plan.limit]
        if price is not None:
            cells.append(f"{plan.hours * price:.2f}")
        rows.append(cells)
    hours = sum(plan.hours for plan in plans)
    total = ["together", "", "", f"{max(plan.peak_mb for plan in plans):,.0f}", "", "", f"{hours:.3g}", ""]
    if price is not None:
        total.append(f"{hours * price:.2f}")
        head.append("Cost")
    rows.append(total)
    lines = [f"Budget {budget_mb / 1024:.1f} GB.", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in rows])


def changes(p: Params, plans: list[StagePlan]) -> list[str]:
    """What to set in params.yaml, ``section.key: value``, where the plan differs from it."""
    found = []
    for plan in plans:
        cfg, name = settings(p, plan.stage), STAGES[plan.stage][0]
        for key, value, now in (
            ("batch_size", plan.batch, cfg.batch_size),
            ("accumulate", plan.accumulate, cfg.accumulate),
            ("checkpointing", plan.checkpointing, cfg.checkpointing),
        ):
            if value != now:
                found.append(f"{name}.{key}: {str(value).lower()}")
    return found


def compared(plans: list[dict[str, Any]], checkpoints: Path) -> str:
    """A plan beside what the trainings took, from the cards of their checkpoints, as Markdown.

    Raises:
        UserError: if none of the stages has a checkpoint.
    """
    rows = []
    for plan in plans:
        folder = checkpoints / FOLDERS[plan["stage"]]
        if not (folder / CARD).is_file():
            continue
        card = read_json(folder / CARD, plan["stage"])
        steps, seconds, peak = card["metrics"].get("steps"), card.get("seconds"), card["metrics"].get("peak_memory_mb")
        if not steps or not seconds:
            continue
        row = [plan["stage"], f"{plan['step_seconds']:.3f}", f"{seconds / steps:.3f}"]
        row.append(f"{plan['step_seconds'] * steps / seconds:.2f}")
        row += [f"{plan['peak_mb']:,.0f}", f"{peak:,.0f}", f"{plan['peak_mb'] / peak:.2f}"] if peak else ["", "", ""]
        rows.append(f"| {' | '.join(row)} |")
    if not rows:
        raise UserError(f"{checkpoints}: no training since; run `dvc repro`")
    head = "| Stage | Planned s/step | Taken | Ratio | Planned peak MB | Taken | Ratio |"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|", *rows])
