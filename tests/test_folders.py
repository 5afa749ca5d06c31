"""Folders by address: here, on a real S3 server, on a web server; the same names, bytes and reasons everywhere."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_folders import SECRET, s3_server, upload, web_server

from muomni.data import folders
from muomni.data.folders import Folder
from muomni.errors import UserError

NAMES = ["a b.txt", "below/deep/ü.txt", "below/two.TXT", "one.txt", "picture.jpg"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One folder at four addresses."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    for name in [*NAMES, ".hidden/x.txt", ".x.txt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client, web_server(folder.parent) as web:
        patch.setattr(folders, "PAUSE", 0.01)
        upload(client, folder, "bucket", "some/mine")
        yield {"path": str(folder), "file": f"file://{folder}", "s3": "s3://bucket/some/mine/", "http": f"{web}/mine"}


@pytest.mark.parametrize("kind", ["path", "file", "s3", "http"])
def test_the_same_folder_everywhere(places: dict[str, str], kind: str) -> None:
    folder = Folder(places[kind])
    assert folder.files() == NAMES
    assert folder.files((".txt",)) == NAMES[:4]
    for name in NAMES:
        data = f"text of {name}".encode()
        assert folder.read(name, 100) == data
        assert folder.sha256(name) == hashlib.sha256(data).hexdigest()
        with folder.open(name) as file:
            file.seek(5)
            assert file.read(2) == b"of"
        assert folder.about(name)["size"] == len(data)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        folder.read("one.txt", 10)
    for name, reason in (("none.txt", "no such file"), ("../x", "outside the folder"), ("below", "no such file")):
        with pytest.raises(ValueError, match=reason):
            folder.read(name, 100)
        assert not folder.exists(name)
    assert folder.exists("one.txt")


@pytest.mark.parametrize("kind", ["path", "s3", "http"])
def test_a_change_is_another_state(places: dict[str, str], kind: str, tmp_path: Path) -> None:
    folder = Folder(places[kind])
    assert folder.state(NAMES) == Folder(places[kind]).state(NAMES[::-1])
    assert folder.state(NAMES) != folder.state(NAMES[:4])
    assert folder.state([*NAMES, "none"]) != folder.state(NAMES)


def test_what_is_wrong_with_an_address_is_one_line(places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    web = places["http"].removesuffix("/mine")
    for address, says in (
        ("/no/such", "no such folder"),
        ("s3://none/x", "no such bucket or folder"),
        ("s3://bucket/none", "no such bucket or folder"),
        (f"{web}/none", "no such bucket or folder"),
        (f"{web}/forbidden", "no rights"),
        (f"{web}/broken", "no answer after 3 tries"),
        ("ftp://x/y", "is not read here"),
        ("s3://", "no folder is named"),
        ("", "no folder is named"),
    ):
        with pytest.raises(UserError, match=f"text.path: .*{says}") as told:
            Folder(address, "text.path").files()
        assert "\n" not in str(told.value) and SECRET not in str(told.value)
    folder = Folder(web)
    with pytest.raises(ValueError, match="no rights"):
        folder.read("forbidden/x", 10)
    with pytest.raises(UserError, match="no answer"):
        folder.read("broken/x", 10)


@pytest.mark.parametrize("address", ["s3://key:pass@bucket/x", "https://me@host/x", "https://host/x?sig=pass"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UserError, match="credentials in the environment") as told:
        Folder(address)
    assert "pass" not in str(told.value) and "me@" not in str(told.value)


def test_a_silent_server_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        for address in (f"http://127.0.0.1:{port}/x", "s3://bucket/x"):
            with pytest.raises(UserError, match="no answer after 3 tries") as told:
                Folder(address, timeout=0.2).files()
            assert SECRET not in str(told.value)


def test_a_link_that_leads_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text("x")
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "out.txt")
    with pytest.raises(ValueError, match="a link that leads out"):
        Folder(str(tmp_path / "in")).read("link.txt", 10)
