"""Servers for tests of data elsewhere: S3 by moto, and a plain web server of a folder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SECRET = "not-to-be-seen"  # nosec B105: of a server that lives as long as a test


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and lists it; ``/forbidden/`` and ``/broken/`` answer 403 and 500."""

    def do_GET(self) -> None:
        """Answer."""
        for part, status in (("forbidden", 403), ("broken", 500)):
            if part in self.path:
                self.send_error(status)
                return
        super().do_GET()

    do_HEAD = do_GET  # an error has no body then, and the rest is decided by `command`

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server that the environment points at; gives a boto3 client of it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        patch.setenv(name, value)
    try:
        yield boto3.client("s3")
    finally:
        server.stop()


def upload(client: Any, folder: Path, bucket: str, below: str) -> None:
    """Put the files of a folder into a bucket, which is made if it is not there."""
    if bucket not in [entry["Name"] for entry in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{below}/{path.relative_to(folder).as_posix()}")
