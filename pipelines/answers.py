"""What comes back from a tracker, which may be anything: a proxy's page, `{}`, half of an answer, one without an end.

MLflow's client takes `{}` for the answer to nearly every request, each field at its default, waits for ever for an
answer of which a byte comes now and then, and reads one of any size into memory. So requests get a limit here, and
whatever counts is asked for again once it was sent.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.errors import one_line
from pipelines.redact import redacted

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

TAKES = 60.0  # seconds for the head of an answer, and again for its body, however slowly they come
MOST = 64 << 20  # bytes of an answer
CAUSE = "(Caused by "


class NotMLflow(ConnectionError):
    """The address answers, but not as MLflow does."""


def reason(error: BaseException, most: int = 200) -> str:
    """An error as one short line: no passwords, no control characters, and of a chain of causes the first."""
    line = one_line(redacted(str(error)[:20_000]))
    if CAUSE in line:
        line = line.rpartition(CAUSE)[2].removesuffix(")")
    return line[:most] or type(error).__name__


@contextmanager
def deadline(end: Callable[[], object], seconds: float) -> Iterator[threading.Event]:
    """Have something called if a block takes longer; the event is set then."""
    late = threading.Event()

    def fire() -> None:
        late.set()
        with suppress(OSError, ValueError, RuntimeError):  # ended already
            end()

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def bound_answers() -> None:
    """Have MLflow's client give up on answers that are too long or never end. Imports MLflow."""
    from mlflow.utils import request_utils
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import ReadTimeout
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    adapter: Any = request_utils.TCPKeepAliveHTTPAdapter
    if adapter.__module__ == __name__:
        return

    def head(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def getresponse(self: Any) -> Any:
            with deadline(lambda: self.sock.shutdown(socket.SHUT_RDWR), TAKES) as late:
                try:
                    return read(self)
                except OSError:
                    if late.is_set():
                        raise TimeoutError(f"no whole answer within {TAKES:g} s") from None
                    raise

        return getresponse

    def pool(base: type, connection: Any) -> type:
        bounded = type(connection.__name__, (connection,), {"getresponse": head(connection.getresponse)})
        return type(base.__name__, (base,), {"ConnectionCls": bounded})

    pools = {
        "http": pool(HTTPConnectionPool, HTTPConnection),
        "https": pool(HTTPSConnectionPool, HTTPSConnection),
    }

    class Adapter(adapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def send(self, request: Any, stream: bool = False, **kwargs: Any) -> Any:
            answer = super().send(request, stream=stream, **kwargs)
            if stream:  # whoever asked reads it, in pieces
                return answer
            body = bytearray()
            with deadline(answer.raw.shutdown, TAKES) as late:
                try:
                    for piece in answer.iter_content(1 << 16):
                        body += piece
                        if len(body) > MOST:
                            raise NoConnection(f"an answer of more than {MOST >> 20} MiB", request=request)
                except OSError:
                    answer.close()
                    if not late.is_set():
                        raise
            if late.is_set():  # one that ends with its connection looks whole
                raise ReadTimeout(f"no whole answer within {TAKES:g} s", request=request)
            answer._content, answer._content_consumed = bytes(body), True
            return answer

    request_utils.TCPKeepAliveHTTPAdapter = Adapter  # type: ignore[misc]
    request_utils._cached_get_request_session.cache_clear()


def the_run(client: "MlflowClient", run_id: str, key: str, tag: str) -> "Run":
    """A run as MLflow has it now.

    Raises:
        NotMLflow: if what comes is not that run.
    """
    run = client.get_run(run_id)
    if run.info.run_id != run_id or run.data.tags.get(tag) != key:
        raise NotMLflow("it answers, but not as MLflow does: it was asked for a run and gave something else")
    return run


def arrived(what: str, wanted: Iterable[str], there: Iterable[str]) -> None:
    """Make sure that what was sent is there.

    Raises:
        NotMLflow: if something is missing.
    """
    missing = sorted({*wanted} - {*there})
    if missing:
        raise NotMLflow(f"it took {what} and does not have them: {', '.join(missing[:3])}")


def files_below(client: "MlflowClient", root: str) -> "ArtifactRepository":
    """Where a run or a model has its files.

    Not by the client's own ways, which remember for good where a wrong answer said that files go: `{}` says here.

    Args:
        client: of the tracker.
        root: as MLflow said.

    Raises:
        NotMLflow: if it did not say where.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not root:
        raise NotMLflow("it answers, but not as MLflow does: it has no place for files")
    return get_artifact_repository(root, tracking_uri=client.tracking_uri)


def send_files(client: "MlflowClient", root: str, path: Path, place: str | None = None) -> None:
    """Send a file, or what a folder holds, and make sure that it is there.

    Args:
        client: of the tracker.
        root: where the run or the model has its files, as MLflow said.
        path: of the file or the folder.
        place: below the root.

    Raises:
        NotMLflow: if MLflow did not say where, or something is missing.
    """
    files = files_below(client, root)
    if path.is_file():
        files.log_artifact(str(path), place)
        wanted = {path.name}
    else:
        files.log_artifacts(str(path), place)
        wanted = {file.relative_to(path).parts[0] for file in path.rglob("*") if file.is_file()}
    arrived("files", wanted, (file.path.rpartition("/")[2] for file in files.list_artifacts(place)))


def points_arrived(run: "Run", batch: "Sequence[Metric]", later: "Sequence[Metric]") -> None:
    """Make sure that a run has the newest points that were sent.

    Args:
        run: as MLflow has it.
        batch: what was sent.
        later: all points that follow; it may have those from an earlier time.

    Raises:
        NotMLflow: if the newest point of a name is another.
    """
    newest = {point.key: point.step for point in batch}
    values: dict[str, set[float]] = {name: set() for name in newest}
    for point in (*batch, *later):
        if point.step >= newest.get(point.key, point.step + 1):
            values[point.key].add(point.value)
    arrived("points", values, (name for name in values if run.data.metrics.get(name) in values[name]))
