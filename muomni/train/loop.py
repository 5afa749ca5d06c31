"""The one training loop. A stage gives it a `Task` (batch, loss, evaluation, samples) and a `TrainConfig`.

A step fetches micro-batches, adds up their gradients, clips, updates. Once in a while the loop reports,
evaluates, saves. Everything random in a step is seeded from (seed, step, micro-step), so an interrupted
training that goes on from its saved state ends, on a CPU, with the very same bits. For the same reason a step that
runs out of memory can begin again, in smaller parts.
"""

import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muomni.device import Device
from muomni.errors import UserError
from muomni.train import parallel, state
from muomni.train.bad_steps import Undo, check_evaluated, check_finite, check_learned
from muomni.train.feed import Feed
from muomni.train.looking import looking
from muomni.train.memory import free, is_out_of_memory, memory_mb, no_memory_is_an_error
from muomni.train.optim import make_optimisers, rate, set_rate
from muomni.train.parts import Parts
from muomni.train.report import MetricsFile, Progress, Window
from muomni.train.task import Task, TrainConfig
from muomni.train.weights import keep_weights

REPORT_EVERY = 10  # steps whose means make one line of the metrics file


class Training:
    """A training under way: what `fit` sets up and steps through."""

    def __init__(
        self,
        task: Task,
        cfg: TrainConfig,
        seed: int,
        device: Device,
        folder: Path,
        fingerprint: str,
        name: str,
    ) -> None:
        self.task, self.cfg, self.seed, self.device, self.folder, self.name = (
            task,
            cfg,
            seed,
            device,
            folder,
            name,
        )
        parallel.join(device.device)
        self.rank, self.processes = parallel.world()
        for module in task.frozen.values():
            module.to(device.device).eval().requires_grad_(False)
        for module in task.modules.values():
            module.to(device.device).train()
        named = {id(p): p for module in task.modules.values() for p in module.parameters() if p.requires_grad}
        self.parameters = list(named.values())
        if not self.parameters:
            raise UserError(f"{name}: no parameter is trainable; check which parts are frozen")
        self.optimisers = make_optimisers(task.modules, cfg.lr, cfg.muon_lr, cfg.weight_decay)
        self.frozen_digest = state.digest(task.frozen)

        # JSON values that are saved with the tensors. bad: skipped steps in a row; last: the last report.
        self.facts: dict[str, Any] = {"step": 0, "bad": 0, "skipped": 0, "seconds": 0.0, "best": None}
        self.facts |= {"sums": {}, "last": {}, "valid": {}}
        self.facts |= {"parts": 1, "checkpointing": False, "peak_memory_mb": 0.0}
        self.best: dict[str, Tensor] = {}
        if self.rank == 0:
            state.prepare(folder, fingerprint)
        parallel.wait()
        loaded = state.load_state(folder)
        if loaded is not None:
            tensors, self.facts = loaded
            state.restore_modules(task.modules, tensors)
            state.restore_optimisers(self.optimisers, tensors)
            self.best = {"model" + key[4:]: value for key, value in tensors.items() if key.startswith("best/")}
        parallel.check_start(folder, self.facts)
        parallel.share_weights(task.modules.values())
        self.undo = Undo(task.modules)
        self.parts = Parts(name, task, cfg, seed, device, self.facts, self.parameters)
        self.saved = self.start = int(self.facts["step"])
        self.before = float(self.facts["seconds"])
        self.window = Window(self.facts["sums"])
        self.began = self.marked_time = time.perf_counter()
        self.marked_step = self.start

    def run(self, samples: bool) -> dict[str, float]:
        """Train from the step where the state is to the last, and give the modules their final weights.

        Raises:
            RuntimeError: if a frozen part has changed.
        """
        cfg, progress = self.cfg, Progress(self.name, self.start, self.cfg.steps, quiet=self.rank > 0)
        progress.note(self.device.description + (f"; going on after step {self.start}" if self.start else ""))
        metrics = MetricsFile(self.folder / "metrics.jsonl") if self.rank == 0 else None
        places = ((step, micro) for step in range(self.start, cfg.steps) for micro in self.micros())
        feed = Feed(self.task.batch, self.seed, places)
        try:
            for step in range(self.start, cfg.steps):
                sys.audit("muomni.step", self.name, step)  # PEP 578: for whoever watches, or kills at a set place
                loss, norm = self.gradients(step, feed, progress)
                self.update(step + 1, loss, norm, progress)
                done = step + 1
                last = done == cfg.steps
                progress.update(done, {"loss": loss})
                if done % cfg.eval_every == 0 or done % cfg.save_every == 0 or last:
                    check_finite(f"{self.name}: step {done}", self.task.modules, self.optimisers, self.last_good())
                line = self.report(done, feed) if done % REPORT_EVERY == 0 or last else {}
                if self.rank == 0 and (done % cfg.eval_every == 0 or last):
                    line |= self.look(done, samples)
                    shown = (f"{key} {value:.4g}" for key, value in self.facts["valid"].items())
                    progress.note(f"step {done}: {', '.join(shown)}")
                if metrics is not None and line:
                    metrics.write(done, line)
                if self.rank == 0 and (done % cfg.save_every == 0 or last):
                    self.save(done)
        finally:
            feed.close()
            progress.close()
            if metrics is not None:
                metrics.close()
        leaked = any(p.grad is not None for module in self.task.frozen.values() for p in module.parameters())
        if leaked or state.digest(self.task.frozen) != self.frozen_digest:
            raise RuntimeError(f"{self.name}: a frozen part was trained or changed")
        check_learned(self.name, cfg.steps, self.facts["skipped"])
        if self.rank == 0:
            check_evaluated(self.name, self.task.best_by, self.facts["best"])
        if self.best:
            state.restore_modules(self.task.modules, self.best)
        counts = {
            "steps": cfg.steps,
            "skipped_steps": self.facts["skipped"],
            "seconds": self.facts["seconds"],
            "peak_memory_mb": self.facts["peak_memory_mb"],
        }
        return self.facts["last"] | self.facts["valid"] | counts

    def micros(self) -> range:
        """Numbers of this process's micro-steps: with two processes, 0, 2, ... and 1, 3, ..."""
        return range(self.rank, self.cfg.accumulate * self.processes, self.processes)

    def gradients(self, step: int, feed: Feed, progress: Progress | None = None) -> tuple[float, float]:
        """Clipped mean gradient over a step's micro-batches.

        Args:
            step: its number.
            feed: gives the micro-batches.
            progress: where to say that memory ran out and what is done about it; None: that is an error as any other.

        Returns:
            Mean loss, and norm before clipping.

        Raises:
            UserError: if memory runs out and nothing can be done about it.
        """
        self.zero_grad()
        self.undo.keep()
        losses, self.values, batches = list[Tensor](), [], list[Any]()
        while len(losses) < self.cfg.accumulate:
            place = len(losses)
            if place == len(batches):  # else the step began again
                batches.append(feed.next())
            try:
                loss, values = self.parts.backward(step, self.micros()[place], batches[place])
            except (RuntimeError, MemoryError) as error:
                if progress is None or not is_out_of_memory(error):
                    raise
            else:
                losses.append(loss)
                self.values.append(values)
                continue
            # Not within `except`, which keeps the attempt's tensors alive. It may have added a part of its gradient.
            self.zero_grad()
            self.undo.put_back()
            free(self.task.modules, self.device.device)
            progress.note(f"step {step + 1}: out of memory; {self.parts.shrink(step, batches[place])}")
            losses, self.values = [], []
        mean = torch.stack(losses).mean()
        parallel.average_gradients(self.parameters, mean)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.cfg.clip)
        loss_value, norm_value = torch.stack([mean, norm.float()]).tolist()  # the step's one wait for the GPU
        return loss_value, norm_value

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def update(self, done: int, loss: float, norm: float, progress: Progress) -> None:
        """Change the weights; if the loss or the gradient is NaN or infinite, leave everything as it was before.

        Raises:
            UserError: if that happens too often in a row.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            cfg = self.cfg
            set_rate(self.optimisers, rate(done - 1, cfg.steps, cfg.warmup, cfg.min_lr))
            for optimiser in self.optimisers:
                optimiser.step()
            parallel.share_buffers(self.task.modules.values())
            self.facts["bad"] = 0
            self.window.add({"loss": loss, "grad_norm": norm})
            for values in self.values:
                self.window.add({key: float(value) for key, value in values.items()})
            return
        self.undo.put_back()
        self.facts["bad"] += 1
        self.facts["skipped"] += 1
        progress.note(f"step {done}: loss {loss:g}, gradient norm {norm:g}: step skipped")
        if self.facts["bad"] > self.cfg.max_bad_steps:
            raise UserError(
                f"{self.name}: step {done}: loss or gradient is NaN or infinite, "
                f"{self.facts['bad']} times in a row; {self.last_good()}; lower lr or muon_lr, or check the data"
            )

    def last_good(self) -> str:
        """Where the last state is that can be gone on from."""
        good = f"the last good state, step {self.saved}, is in" if self.saved else "no state was saved in"
        return f"{good} {self.folder}"

    def report(self, done: int, feed: Feed) -> dict[str, float]:
        """Means since the last report, rates and shares."""
        cfg, now = self.cfg, time.perf_counter()
        seconds, steps = now - self.marked_time, done - self.marked_step
        self.facts["last"] = self.window.means()
        line = self.facts["last"] | {
            "lr": cfg.lr * rate(done - 1, cfg.steps, cfg.warmup, cfg.min_lr),
            "skipped_steps": self.facts["skipped"],
            "samples_per_second": steps * cfg.batch_size * cfg.accumulate * self.processes / seconds,
            "waiting_for_data": feed.waited / seconds,
            "memory_mb": memory_mb(self.device.device)[0],
        }
        self.window, self.marked_time, self.marked_step, feed.waited = Window(), now, done, 0.0
        return line

    def look(self, done: int, samples: bool) -> dict[str, float]:
        """Evaluate, keep the best weights, write weights and samples. Returns the metrics as ``valid_<name>``."""
        paused = time.perf_counter()
        with looking(self.task.modules, self.device):
            valid = {f"valid_{name}": float(value) for name, value in self.task.evaluate().items()}
            if samples:
                final = self.folder / "samples" / f"step-{done:06d}"
                partial = final.with_name("." + final.name)  # the tracker sends only folders that are whole
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                self.task.samples(done, partial)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(partial, final)
        if samples:
            keep_weights(self.folder / "checkpoints", done, self.task.modules, valid)
        self.facts["valid"] = valid
        score = valid[f"valid_{self.task.best_by}"] if self.task.best_by else math.nan
        if math.isfinite(score) and (self.facts["best"] is None or score < self.facts["best"]):
            self.facts["best"] = score
            self.best = {key: t.cpu().clone() for key, t in state.module_tensors(self.task.modules).items()}
        self.marked_time += time.perf_counter() - paused
        return valid

    def save(self, done: int) -> None:
        """Save the state, but not within a row of bad steps: what was good before them may not have been."""
        self.facts["seconds"] = self.before + time.perf_counter() - self.began
        self.facts["peak_memory_mb"] = max(self.facts["peak_memory_mb"], memory_mb(self.device.device)[1])
        if self.facts["bad"] == 0:
            self.facts |= {"step": done, "sums": self.window.sums}
            state.save_state(self.folder, self.task.modules, self.optimisers, self.best, self.facts)
            self.saved = done


def fit(
    task: Task,
    cfg: TrainConfig,
    *,
    seed: int,
    device: Device,
    state_dir: str | Path,
    fingerprint: str,
    name: str = "train",
    samples: bool = True,
) -> dict[str, float]:
    """Train a task's modules in place.

    Args:
        task: the stage.
        cfg: its settings.
        seed: of everything random.
        device: from `muomni.device.pick_device`.
        state_dir: folder for the state, ``metrics.jsonl``, ``samples/`` and ``checkpoints/``. An interrupted
            training found there goes on if its fingerprint is the same, else it is discarded with a note. Remove
            the folder with `state.finish` once the outputs are written.
        fingerprint: from `state.fingerprint`.
        name: shown beside the progress.
        samples: whether to write samples and weights at each evaluation.

    Returns:
        The last report's means, the last evaluation as ``valid_<name>``, ``steps``, ``skipped_steps``, ``seconds`` and
        ``peak_memory_mb``, of the GPU if there is one, else of this process.

    Raises:
        UserError: if there is nothing to train or to train on, if too many steps in a row were not finite, or if there
            is too little memory.
    """
    if cfg.steps < 1:
        raise UserError(f"{name}: steps: a training of zero steps trains nothing; set at least 1")
    with no_memory_is_an_error(name):
        metrics = Training(task, cfg, seed, device, Path(state_dir), fingerprint, name).run(samples)
    parallel.leave()
    return metrics
