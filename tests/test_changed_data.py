"""A file of a corpus or of the tokenizer that was changed stops every stage that reads it, in one line."""

import shutil
from pathlib import Path

import pytest

from muomni.data.files import MANIFEST, check_manifest, write_manifest
from muomni.errors import UserError
from pipelines import conversation_shards, corpus_speech, image_shards, mel_shards, tokenizer, tokens
from pipelines.training import hashes

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("data/corpus/text", "data/corpus/images", "data/corpus/speech", "data/tokenizer")
READERS = {
    "data/corpus/text": (tokenizer, tokens, corpus_speech),
    "data/corpus/images": (image_shards,),
    "data/corpus/speech": (mel_shards, conversation_shards),
    "data/tokenizer": (tokens,),
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of data as stages leave them, of one file and one below it each."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "profiles" / "smoke.yaml", "params.yaml")
    for name in FOLDERS:
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "one").write_text("one")
        (tmp_path / name / "below" / "two").write_text("two")
        write_manifest(name, source="s", licences=[], counts={}, splits={}, bad=[])
    return tmp_path


@pytest.mark.parametrize("name", FOLDERS)
def test_every_stage_that_reads_a_changed_folder_stops(name: str) -> None:
    check_manifest(name)
    assert hashes([name]) and hashes([f"{name}/one"])
    (Path(name) / "below" / "two").write_text("twp")
    stage = name.removeprefix("data/").replace("/", "-")
    for module in READERS[name]:
        with pytest.raises(UserError, match=f"{name}: its files are not those .* run `dvc repro --force {stage}`"):
            module.run()
    for read in (name, f"{name}/one"):  # trainings
        with pytest.raises(UserError, match="its files are not those"):
            hashes([read])
    assert not Path("data/tokens").exists() and not Path("data/shards").exists()


@pytest.mark.parametrize("left", ["", "[]", '{"sha256": 3}', '{"sha256": "00"}', "{"])
def test_a_damaged_manifest_is_one_line(left: str) -> None:
    folder = Path("data/corpus/text")
    (folder / MANIFEST).write_text(left)
    with pytest.raises(UserError, match="dvc repro --force corpus-text"):
        check_manifest(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match="no such file; run `dvc repro corpus-text`"):
        check_manifest(folder)


def test_files_that_are_gone_or_new_count_and_hidden_ones_do_not() -> None:
    folder = Path("data/corpus/images")
    (folder / ".one.123.tmp").write_text("left by a kill")
    check_manifest(folder)
    for change in (lambda: (folder / "three").write_text("3"), lambda: (folder / "one").unlink()):
        change()
        with pytest.raises(UserError, match="its files are not those"):
            check_manifest(folder)
        (folder / "three").unlink(missing_ok=True)
        (folder / "one").write_text("one")
        check_manifest(folder)
