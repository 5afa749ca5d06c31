"""Ends a process with SIGKILL, or in the middle of a write, at a place that is set from outside; see `faults.py`.

Laid into a folder on ``PYTHONPATH`` as ``sitecustomize.py``, it comes into every Python process of a run: dvc, the
stage, and the stage's workers. What it watches are Python's own audit events (PEP 578), so that the code under test is
what everybody runs. ``FAULT_PLAN`` says, as JSON::

    role    dvc, stage or worker: which process
    kind    import   before the n-th import
            change   before the n-th change of a file below ``root``: open for writing, rename, remove, link, mkdir
            step     before training step n
            byte     in the middle of a write: when a file grows over n bytes, counted from the first event that names
                     ``arm`` (a part of a path), or from step ``arm`` if that is a number
    n       see above
    root    the folder of the run
    count   a file: instead of ending anything, how often each kind came is written there, for each role

Ending in the middle of a write is the kernel's doing (RLIMIT_FSIZE and the default action of SIGXFSZ), so that it also
meets what is written from C and Rust.
"""

import atexit
import json
import os
import resource
import signal
import sys

KINDS = ("import", "change", "step")
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.move"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def role_here() -> str:
    """What this process is in the run."""
    words = sys.orig_argv
    if any("spawn_main" in word for word in words):
        return "worker"
    for flag, module in zip(words, words[1:], strict=False):
        if flag == "-m" and module == "dvc":
            return "dvc"
        if flag == "-m" and module.startswith("pipelines."):
            return "stage"
    return ""


class Hook:
    """The audit hook: counts events, and ends the process at the one that is asked for."""

    def __init__(self, plan: dict) -> None:
        self.plan, self.seen, self.me = plan, dict.fromkeys(KINDS, 0), os.getpid()
        self.armed = False

    def __call__(self, event: str, args: tuple) -> None:
        """Called by Python before everything that it audits."""
        kind = self.kind(event, args)
        if not kind or os.getpid() != self.me:  # not in a child that was forked and is about to become something else
            return
        self.seen[kind] += 1
        plan = self.plan
        if "count" in plan:
            return
        if plan["kind"] == "byte":
            self.arm(kind, args)
        elif plan["kind"] == kind and (args[1] if kind == "step" else self.seen[kind]) >= plan["n"]:
            self.tell()
            os.kill(self.me, signal.SIGKILL)

    def kind(self, event: str, args: tuple) -> str:
        """Which of `KINDS` an event is, or nothing."""
        if event == "import":
            return "import"
        if event == "muomni.step":
            return "step"
        if event == "open":
            path, mode, flags = args
            writes = any(c in mode for c in "wax+") if mode else bool((flags or 0) & WRITES)
            return "change" if writes and self.below(path) else ""
        return "change" if event in CHANGES and self.below(args[0]) else ""

    def below(self, path: object) -> bool:
        """Whether a path lies in the run's folder."""
        if isinstance(path, int):
            return False
        try:
            return os.path.abspath(os.fsdecode(path)).startswith(self.plan["root"] + os.sep)
        except (TypeError, ValueError):
            return False

    def arm(self, kind: str, args: tuple) -> None:
        """From the right moment on, have the kernel end the process at the n-th byte of any file."""
        wanted = self.plan["arm"]
        if self.armed or (isinstance(wanted, int) != (kind == "step")):
            return
        if args[1] >= wanted if kind == "step" else any(wanted in str(arg) for arg in args if not isinstance(arg, int)):
            self.armed = True
            self.tell()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.plan["n"], self.plan["n"]))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    def tell(self) -> None:
        """Leave word that it came this far, outside the run's folder."""
        os.close(os.open(self.plan["mark"], os.O_CREAT | os.O_WRONLY))

    def write_counts(self) -> None:
        """Add what was seen to the file of counts; a process that ends in another way adds nothing."""
        if os.getpid() == self.me:
            with open(self.plan["count"], "a", encoding="utf-8") as file:
                file.write(json.dumps({"role": role_here(), **self.seen}) + "\n")


def install() -> None:
    """Watch this process if the plan is about it."""
    plan = json.loads(os.environ.get("FAULT_PLAN") or "null")
    if plan is None or (role_here() != plan["role"] if "role" in plan else not role_here()):
        return
    hook = Hook(plan)
    if "count" in plan:
        atexit.register(hook.write_counts)
    sys.addaudithook(hook)


install()
