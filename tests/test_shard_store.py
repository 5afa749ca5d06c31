"""Shards in an object store: S3 over HTTP by moto, with connections that break, stall or bring wrong bytes."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from cutting_proxy import CuttingProxy
from remote_folders import s3_server, upload, web_server

from muomni.data import folders, shard_files
from muomni.data.shard_files import ShardFiles
from muomni.data.shard_stream import Reader, ShardStream
from muomni.data.shards import ShardWriter, write_index
from muomni.errors import UserError

Fault = Callable[[str, int], tuple[str, int] | None]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "mels"
    rng = np.random.default_rng(0)
    with ShardWriter(folder, "train", 5) as writer:
        for number in range(23):
            writer.write(f"s{number:03d}", {"npy": rng.normal(size=(40, 100)), "json": {"n": number}})
    write_index(folder, {"train": writer.shards}, [])
    return folder


@pytest.fixture(scope="module")
def store(shards: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client:
        upload(client, shards, "corpora", "mels")
        yield client


@contextmanager
def faulty(patch: pytest.MonkeyPatch, fault: Fault) -> Iterator[CuttingProxy]:
    """The store behind a proxy."""
    patch.setattr(folders, "PAUSE", 0.01)
    patch.setattr(shard_files, "PAUSE", 0.01)
    port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
    assert port is not None
    with CuttingProxy(port, fault) as proxy:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def numbers(stream: ShardStream, reader: Reader = Reader()) -> list[int]:  # noqa: B008
    try:
        return [sample["json"]["n"] for sample in stream.read(stream.start(1), reader)]
    finally:
        stream.close()


def test_a_bucket_and_a_web_server_give_what_the_folder_gives(shards: Path, store: Any) -> None:
    wanted = numbers(ShardStream(shards, "train", 3, window=2))
    assert sorted(wanted) == list(range(23))
    assert numbers(ShardStream("s3://corpora/mels", "train", 3, window=2)) == wanted
    with web_server(shards.parent) as address:
        assert numbers(ShardStream(f"{address}/mels", "train", 3, window=2)) == wanted


@pytest.mark.parametrize("kind", ["cut", "flip", "stall"])
def test_what_breaks_once_is_asked_for_again(
    shards: Path, store: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    wanted = numbers(ShardStream(shards, "train", 3, window=2))

    def fault(path: str, before: int) -> tuple[str, int] | None:
        return (kind, 60_000) if path.endswith("train-000002.tar") and before == 0 else None

    with faulty(monkeypatch, fault) as proxy:
        assert numbers(ShardStream("s3://corpora/mels", "train", 3, window=2, timeout=0.5)) == wanted
        assert sum(path.endswith("train-000002.tar") for path in proxy.asked) >= 2


@pytest.mark.parametrize(
    ("kind", "message"), [("cut", "no answer after 3 tries"), ("flip", "after 3 tries"), ("stall", "no answer")]
)
def test_what_stays_broken_is_one_error_after_a_limit(
    store: Any, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    def fault(path: str, before: int) -> tuple[str, int] | None:
        return (kind, 60_000) if path.endswith("train-000002.tar") else None

    with faulty(monkeypatch, fault) as proxy:
        with pytest.raises(UserError, match=message) as caught:
            numbers(ShardStream("s3://corpora/mels", "train", 3, window=1, timeout=0.5))
        assert "\n" not in str(caught.value) and "s3://corpora/mels/train-000002.tar" in str(caught.value)
        assert sum(path.endswith("train-000002.tar") for path in proxy.asked) < 40


def test_wrong_bytes_of_a_plain_web_server_are_found_by_the_hash(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "PAUSE", 0.01)
    wanted = numbers(ShardStream(shards, "train", 3, window=2))
    for times in (2, 1000):

        def fault(path: str, before: int, times: int = times) -> tuple[str, int] | None:
            return ("flip", 60_000) if path.endswith("2.tar") and before < times else None

        with (
            web_server(shards.parent) as address,
            CuttingProxy(urlsplit(address).port or 0, fault) as proxy,
        ):
            stream = ShardStream(f"http://127.0.0.1:{proxy.port}/mels", "train", 3, window=2)
            if times == 2:
                assert numbers(stream) == wanted
                continue
            with pytest.raises(UserError, match=r"000002.tar: .*sha256 differs.*3 times in a row; put the shards"):
                numbers(stream)


def test_a_shard_cut_off_or_gone_in_the_store_is_told(
    shards: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_files, "PAUSE", 0.01)
    upload(store, shards, "corpora", "bad")
    whole = (shards / "train-000001.tar").read_bytes()
    for body in (whole[: len(whole) // 2], whole[:-1] + b"x", b""):
        store.put_object(Bucket="corpora", Key="bad/train-000001.tar", Body=body)
        with pytest.raises(UserError, match=r"train-000001.tar: .*3 times in a row; put the shards there again"):
            numbers(ShardStream("s3://corpora/bad", "train", 3))
    store.delete_object(Bucket="corpora", Key="bad/train-000001.tar")
    with pytest.raises(UserError, match=r"train-000001.tar: no such file"):
        numbers(ShardStream("s3://corpora/bad", "train", 3))
    store.put_object(Bucket="corpora", Key="bad/index.json", Body=b'{"splits": {')
    with pytest.raises(UserError, match=r"bad/index.json"):
        ShardStream("s3://corpora/bad", "train", 3)
    with pytest.raises(UserError, match=r"none/index.json: no such file"):
        ShardStream("s3://corpora/none", "train", 3)


def test_readers_of_a_machine_share_a_cache_of_limited_size(
    shards: Path, store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = numbers(ShardStream(shards, "train", 3))
    found: dict[int, list[int]] = {}
    with faulty(monkeypatch, lambda path, before: None) as proxy:

        def read(rank: int) -> None:
            stream = ShardStream("s3://corpora/mels", "train", 3, cache=tmp_path / "cache")
            found[rank] = numbers(stream, Reader(rank, 3))

        threads = [threading.Thread(target=read, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[rank] for rank in range(3)] == [wanted[rank::3] for rank in range(3)]
        asked = {path for path in proxy.asked if path.endswith(".tar")}
        assert len(asked) == 5 and len([path for path in proxy.asked if path.endswith(".tar")]) < 15
        copies = sorted((tmp_path / "cache").glob("*.tar"))
        assert len(copies) == 5
        copies[0].write_bytes(b"damaged")
        size = copies[1].stat().st_size
        stream = ShardStream("s3://corpora/mels", "train", 3, cache=tmp_path / "cache", cache_bytes=2.5 * size)
        assert numbers(stream) == wanted
        assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= 3 * size


def test_a_failed_shard_is_asked_for_again_by_the_next_call(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mels"
    folder.mkdir()
    for path in shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "train-000000.tar").unlink()
    files = ShardFiles(folder, "train", keep=2)
    with pytest.raises(UserError, match="cannot be read"):
        files.read(0, 0)
    (folder / "train-000000.tar").write_bytes((shards / "train-000000.tar").read_bytes())
    assert files.read(0, 4)["json"] == {"n": 4}
    files.close()
