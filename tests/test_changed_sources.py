"""A change in somebody's folder is told, whatever its layout and wherever it is."""

import json
from pathlib import Path

import pytest
from picture_folders import WRITERS, drawn, put
from remote_folders import s3_server, upload
from test_own_conversations import config as conversations
from test_own_conversations import made
from test_own_conversations import write as write_conversations
from test_picture_sources import build as build_pictures
from test_text_sources import build as build_text
from test_text_sources import config as text_config
from test_text_sources import write_lines, write_table

from pipelines import sources


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    code = sources.main()
    lines = capsys.readouterr().out.splitlines()
    assert code == (0 if lines == ["all sources are as they were read"] else 1)
    return [] if code == 0 else lines


@pytest.mark.parametrize("kind", WRITERS)
def test_pictures(project: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    WRITERS[kind](project / "in", 12, 1000)
    build_pictures(project / "data/corpus/images", source=kind, path="in")
    assert told(capsys) == []
    picture = sorted(path for path in (project / "in").rglob("*") if path.suffix in (".png", ".jpg", ".tar"))[0]
    picture.write_bytes(drawn(99))
    assert told(capsys) == ["in: has changed; to read it again: dvc repro --force corpus-images, then dvc repro"]


def test_text_and_conversations_and_what_is_gone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys) == []
    write_lines(project / "a" / "x.jsonl", 40, "text", 1000)
    write_table(project / "b" / "x.parquet", 40, "body", 1000, 500)
    parts = "- {source: jsonl, path: a}\n- {source: parquet, path: b, field: body}\n"
    (project / "mixture.yaml").write_text(parts)
    build_text(text_config(source="mixture", path="mixture.yaml"), project / "data/corpus/text")
    write_conversations(project / "talks", 8, 1000)
    made(project, conversations(source="jsonl", path="talks"), "data/shards/conversations")
    assert told(capsys) == []
    (project / "b" / "y.parquet").write_bytes((project / "b" / "x.parquet").read_bytes())
    put(project / "talks" / "pictures" / "a.png", drawn(50))
    (project / "a" / "x.jsonl").unlink()
    (project / "mixture.yaml").write_text(parts.replace("source: jsonl", "weight: 2, source: jsonl"))
    lines = told(capsys)
    assert [line.split(":")[0] for line in lines] == ["mixture.yaml", "a", "b", "talks"]
    assert "cannot be looked at" in lines[1] and "has changed" in lines[0] and "has changed" in lines[2]
    assert lines[3].endswith("dvc repro --force conversation-shards, then dvc repro")


def test_a_bucket(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["csv"](project / "in", 12, 1000)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client:
        upload(client, project / "in", "bucket", "in")
        manifest = build_pictures(project / "data/corpus/images", source="csv", path="s3://bucket/in")
        assert json.dumps(manifest).find("etag") < 0 and manifest["origins"][0]["state"]
        assert told(capsys) == []
        client.put_object(Bucket="bucket", Key="in/0003.png", Body=drawn(77))
        assert told(capsys)[0].startswith("s3://bucket/in: has changed")
