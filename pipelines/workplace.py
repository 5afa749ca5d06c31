"""``muomni up``: the Prefect server, its pool of one worker, the deployments and the MLflow UI, as one thing.

All of it lives under the state folder (``.muomni/workplace``), is bound to loopback unless told otherwise (and asks for
a token then, `pipelines.access`), and calls nobody. The process that started the others watches them: a worker that
died is started again, and runs whose process is gone are told so to Prefect, which would show them as running for ever.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import httpx
import psutil

from muomni.data.files import atomic_write_json
from muomni.errors import UserError
from pipelines import copies, locks, reaper
from pipelines.access import Access
from pipelines.addresses import without_userinfo
from pipelines.place import POOL, info, root, settings
from pipelines.pools import POOLS
from pipelines.programs import STOP, Program, free, silence
from pipelines.reaper import reap
from pipelines.run import state_root
from pipelines.sync import waiting
from pipelines.tracker import STORE, Tracker

WAIT = 120.0  # seconds until everything must answer
WATCH = 3.0  # seconds between looks at what runs
# Where Prefect's server keeps everything, under its two names.
DATABASES = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
RETRY, LONGEST = 15.0, 600.0  # seconds until MLflow is tried again, at first and at most


@dataclass
class Workplace:
    """What `up` starts.

    Attributes:
        access: where it listens, and who may talk to it.
        port: of the Prefect server.
        mlflow_port: of the MLflow UI.
        pool: where runs work, a name in `pipelines.pools`.
        programs: what runs.
        stopping: whether it was told to end.
        syncing: sends what MLflow was not told of, while it does.
        tell: when that may be tried again, by `time.monotonic`.
        rest: seconds between tries; more after each that failed.
    """

    access: Access
    port: int = 4200
    mlflow_port: int = 5000
    pool: str = "here"
    programs: list[Program] = field(default_factory=list)
    stopping: bool = False
    syncing: subprocess.Popen[bytes] | None = None
    tell: float = 0.0
    rest: float = 0.0

    @property
    def prefect(self) -> str:
        """Address of Prefect's pages."""
        return f"http://{self.access.near}:{self.port}"

    @cached_property
    def api(self) -> httpx.Client:
        """What asks Prefect."""
        return httpx.Client(base_url=f"{self.prefect}/api", auth=self.access.pair, timeout=10)

    @property
    def tracker(self) -> Tracker:
        """Where its runs are tracked."""
        return Tracker(self.access, self.mlflow_port)

    @property
    def mlflow(self) -> str:
        """Address of MLflow's pages; a server that ``MLFLOW_TRACKING_URI`` names has its own."""
        return self.tracker.address

    def env(self) -> dict[str, str]:
        """The environment of all its programs; only the two servers get the addresses of their databases."""
        own = {"MUOMNI_STATE": str(state_root()), "MUOMNI_MLFLOW_UI": self.mlflow, "PYTHONUNBUFFERED": "1"}
        outside = {name: text for name, text in os.environ.items() if name not in (STORE, *DATABASES)}
        return outside | settings(f"{self.prefect}/api") | self.access.clients() | self.tracker.clients() | own

    def start(self) -> None:
        """Start everything and wait until it answers.

        Raises:
            UserError: if a port is taken, or something does not come up.
        """
        free(self.access.host, self.port, "the Prefect server", "--port")
        tracker = self.tracker.program(self.at(self.mlflow_port))
        python = [sys.executable, "-m"]
        serve = [*python, "pipelines.prefect_server", "start", *self.at(self.port)]
        bases = {name: os.environ[name] for name in DATABASES if name in os.environ}
        server = Program("prefect", serve, bases | self.access.prefect())
        self.run(server)
        if tracker is not None:
            self.run(tracker)
        self.wait(server, f"{self.prefect}/api/health")
        silence(root() / "pages")
        deploy = Program("deploy", [*python, "pipelines.deploy", "--pool", self.pool])
        self.run(deploy)
        assert deploy.process is not None
        if deploy.process.wait(WAIT):
            raise UserError(f"the deployments cannot be made: {deploy.last_words()} (see {deploy.log})")
        self.programs.remove(deploy)
        reap(self.api, POOL, state_root(), starting=True)
        self.tidy()
        if POOLS[self.pool].worker is None:
            worker = ["worker", "start", "--pool", POOL, "--name", "gpu-worker", "--type", "process"]
            self.run(Program("worker", [*python, "prefect", *worker]))
        if tracker is not None:
            self.wait(tracker, f"{self.mlflow}/health")

    def at(self, port: int) -> list[str]:
        """The options that say where to listen."""
        return ["--host", self.access.host, "--port", str(port)]

    def run(self, program: Program) -> None:
        """Start a program, with a new log."""
        program.log.parent.mkdir(parents=True, exist_ok=True)
        program.log.unlink(missing_ok=True)
        program.start(self.env())
        self.programs.append(program)

    def wait(self, program: Program, address: str) -> None:
        """Wait until a program answers.

        Raises:
            UserError: if it ends or takes too long.
        """
        end = time.monotonic() + WAIT
        while time.monotonic() < end and not self.stopping:
            if program.ended():
                break
            with suppress(httpx.HTTPError):
                if httpx.get(address, timeout=2).status_code == 200:
                    return
            time.sleep(0.2)
        if not self.stopping:
            told = without_userinfo(program.last_words())[:200]
            raise UserError(f"{program.name}: does not answer: {told} (see {program.log})")

    def watch(self) -> None:
        """Look after everything until told to stop: start again what ended, and tell Prefect of dead runs."""
        while not self.stopping:
            time.sleep(WATCH)
            for program in self.programs:
                if program.ended() and not self.stopping:
                    print(f"{program.name}: ended ({program.last_words()[:200]}); started again", file=sys.stderr)
                    program.start(self.env())
            with suppress(httpx.HTTPError):
                reap(self.api, POOL, state_root())
                self.tidy()

    def tidy(self) -> None:
        """After runs whose processes were killed: remove their copies. What MLflow was not told of is sent."""
        gone = reaper.gone(state_root())
        if gone:
            copies.prune()
        if self.syncing is not None and (code := self.syncing.poll()) is not None:
            self.rest = min(2 * self.rest + RETRY, LONGEST) if code else 0.0
            self.tell = time.monotonic() + self.rest
            self.syncing = None
        if self.syncing is None and time.monotonic() >= self.tell and waiting(state_root()):
            # In a process of its own: it imports MLflow.
            command = [sys.executable, "-m", "muomni.cli", "track", "sync"]
            with (root() / "sync.log").open("ab") as log:
                self.syncing = subprocess.Popen(
                    command, env=self.env(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        for path in gone:
            path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End everything: the worker and the run it has first, so that Prefect can be told of it."""
        self.stopping = True
        order = sorted(self.programs, key=lambda program: program.name != "worker")
        for program in order:
            if program.name == "worker" and program.process is not None:
                self.end_run(program.process.pid)
            program.stop()
            if program.name == "worker":
                with suppress(httpx.HTTPError):
                    reap(self.api, POOL, state_root())
                    self.tidy()

    def end_run(self, worker: int) -> None:
        """End the run that a worker has: told to end, the worker itself would wait for it."""
        for path in reaper.flows_root(state_root()).glob("*"):
            who = locks.holder(path) or {}
            with suppress(psutil.Error, KeyError):
                process = psutil.Process(who["pid"])
                if worker in [parent.pid for parent in process.parents()]:
                    process.terminate()
                    process.wait(STOP)


def up(access: Access, port: int, mlflow_port: int, say: Callable[[str], None], pool: str = "here") -> None:
    """Start the workplace and stay until Ctrl-C or SIGTERM.

    Args:
        access: who may reach it, and with which token.
        port: of Prefect's server and pages.
        mlflow_port: of MLflow's.
        say: is told what is up, and where.
        pool: which of `POOLS` the runs go to.

    Raises:
        UserError: if one runs already, or something does not start.
    """
    place = Workplace(access, port, mlflow_port, pool)

    def stop(number: int, frame: object) -> None:
        place.stopping = True

    try:
        with locks.held(root() / "lock"):
            for sign in (signal.SIGINT, signal.SIGTERM):
                signal.signal(sign, stop)
            try:
                place.start()
                if not place.stopping:
                    found = {"pid": os.getpid(), "prefect": place.prefect, "mlflow": place.mlflow}
                    found["guarded"] = access.token is not None
                    say(f"Prefect: {place.prefect}   runs, their queue, the run form (Deployments)")
                    say(f"MLflow:  {place.mlflow}   metrics, the model registry")
                    if worker := POOLS[pool].worker:
                        say(f"Worker:  {worker}   where it can reach both (docs/pools.md)")
                    # Last: who starts this in the background then shows what was said.
                    atomic_write_json(root() / "workplace.json", found)
                    place.watch()
            finally:
                say("stopping")
                place.stop()
                (root() / "workplace.json").unlink(missing_ok=True)
    except locks.Busy as busy:
        raise UserError(f"the workplace is up already (process {busy.who.get('pid')}); `muomni down` ends it") from None


def up_in_background(words: list[str], say: Callable[[str], None]) -> None:
    """Start the workplace as a process of its own, and wait until it is ready.

    Raises:
        UserError: if it does not start.
    """
    root().mkdir(parents=True, exist_ok=True)
    log = root() / "up.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "muomni.cli", "up", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    end = time.monotonic() + 2 * WAIT
    while time.monotonic() < end and process.poll() is None:
        if (info() or {}).get("pid") == process.pid:
            say(log.read_text(encoding="utf-8").rstrip())
            return
        time.sleep(0.3)
    last = (log.read_text(encoding="utf-8").strip() or "it said nothing").splitlines()[-1]
    raise UserError(last.removeprefix("error: "))


def down() -> int | None:
    """End a running workplace and return its process's id; None if there is none.

    Raises:
        UserError: if it does not end.
    """
    who = locks.holder(root() / "lock")
    if who is None:
        return None
    pid = int(who["pid"])
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 4 * STOP
    while locks.holder(root() / "lock") is not None:
        if time.monotonic() > end:
            raise UserError(f"process {pid} does not end; kill it: kill -9 {pid}")
        time.sleep(0.2)
    return pid
