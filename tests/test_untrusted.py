"""Nothing that is loaded is unpickled or run; `test_forged` has what else can be wrong with a checkpoint."""

import ast
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forged import agree, refused
from test_image_corpus import folder_images

from muomni.checkpoint import weights_sha256
from muomni.cli import main
from muomni.data.badsamples import BadSamples
from muomni.data.files import atomic_write_json
from muomni.data.own_speech import own_utterances
from muomni.data.text_corpus import file_documents
from muomni.errors import UserError
from muomni.fusion import Plan
from muomni.generate import Answer, PlanEvent, TextEvent
from muomni.model_commands import show
from pipelines import model_source

ROOT = Path(__file__).parent.parent
UNPICKLERS = {
    "pickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
    "pandas.io.pickle",
}


def dangers(source: str) -> list[str]:
    """What in a program could run what a file says."""
    found, tree = [], ast.parse(source)
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
    found += sorted(UNPICKLERS & modules)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        first, _, last_part = called.rpartition(".")
        bad = (
            called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
            or (
                called == "torch.load" and given.get("weights_only") != "True"
            )  # else it takes tensors and numbers only
            or called in ("torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle")
            or (called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False")
            or (first == "yaml" and "yaml" in modules and last_part in ("load", "load_all", "unsafe_load", "full_load"))
            or (last_part == "load_model" and "mlflow" in first)
            or given.get("shell") not in (None, "False")
            or given.get("trust_remote_code") == "True"
            or given.get("weights_only") == "False"
        )
        if bad:
            found.append(called)
    return found


# Loads with its code, as transformers' users do, the folder that it has written itself just before.
OWN_CODE = {"benchmarks/export_answers.py"}


@pytest.mark.parametrize("room", ["muomni", "pipelines", "benchmarks", "scripts"])
def test_no_program_unpickles_or_runs_what_a_file_says(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    found = {str(path.relative_to(ROOT)): dangers(path.read_text(encoding="utf-8")) for path in files}
    assert {name: calls for name, calls in found.items() if calls and name not in OWN_CODE} == {}
    assert files or room == "scripts"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle",
        "torch.load(x)",
        "torch.load(x, weights_only=flag)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "import yaml\nyaml.load(x, Loader=L)",
        "eval(x)",
        "subprocess.run(x, shell=True)",
        "mlflow.pyfunc.load_model(x)",
        "os.system(x)",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert dangers(line)
    assert not dangers("np.load(x, allow_pickle=False)\nyaml.safe_load(x)\nmodel.eval()\nsubprocess.run(x)")
    assert not dangers("torch.load(x, weights_only=True)")


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


def zipped(content: bytes) -> bytes:
    """A pickle as `torch.save` writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint."""
    return Path(shutil.copytree(checkpoint, tmp_path / "omni"))


def test_planted_pickles_never_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "it-ran"
    content = pickle.dumps(Payload(mark))
    pickle.loads(content)  # the payload works
    mark.rmdir()
    names = ("model.safetensors", "config.json", "card.json", "tokenizer.model")
    good = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        for planted in (content, zipped(content)):
            (folder / name).write_bytes(planted)
            if name != "card.json":
                agree(folder)
            refused(folder, capsys)
            assert main(["verify", str(folder)]) == 1
            capsys.readouterr()
            (folder / name).write_bytes(good[name])
            (folder / "card.json").write_bytes(good["card.json"])
    for name in names:
        (folder / name).write_bytes(content)
    refused(folder, capsys)
    for name in names:
        (folder / name).write_bytes(good[name])
    for name in ("pytorch_model.bin", "model.pt", "python_model.pkl", "data.pkl", "sitecustomize.py", "__init__.py"):
        (folder / name).write_bytes(zipped(content) if name.endswith(("bin", "pt")) else content)
    assert main(["chat", "--text", "Hi", "--max-tokens", "2", "--checkpoint", str(folder)]) == 0  # they are not read
    assert not mark.exists()


def test_a_registered_model_holds_no_pickle_and_none_that_is_put_there_runs(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [path.parent for path in (home / "mlruns").rglob("MLmodel")]
    assert models and not [path for path in (home / "mlruns").rglob("*") if path.suffix in (".pkl", ".pickle", ".pt")]
    mark, planted = tmp_path / "it-ran", [model / "python_model.pkl" for model in models]
    try:
        for path in planted:
            path.write_bytes(pickle.dumps(Payload(mark)))
        assert main(["chat", "--model", "models:/muomni@champion", "--text", "Hi", "--max-tokens", "2"]) == 0
    finally:
        for path in planted:
            path.unlink()
    assert not mark.exists()


BAD_NAMES = ["\ud800.wav", "a\0.wav", "n" * 3000, "/etc/passwd", "..", ""]


def test_own_data_may_name_files_and_say_texts_that_cannot_be(tmp_path: Path) -> None:
    rows = [{"file": name, "text": "hello", "name": "dog"} for name in BAD_NAMES]
    rows += [{"file": "a.wav", "text": "half a \ud800", "name": "\ud800"}]
    for name in ("metadata.jsonl", "captions.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    spoken, seen = BadSamples(1.0, "speech"), BadSamples(1.0, "images")
    made = own_utterances("folder", str(tmp_path), 0, spoken)[0]
    assert all(Path(item.source).is_relative_to(tmp_path) for item in made)
    assert len(spoken) + len(made) == len(rows) and len(made) == 1  # the long name, which is no file then
    assert folder_images(tmp_path, 0, 10**6, seen) == [] and len(seen) == len(rows)
    atomic_write_json(tmp_path / "manifest.json", spoken.items + seen.items)  # as the stages do


def test_own_data_nested_too_deeply_are_bad_samples(tmp_path: Path) -> None:
    for name in ("metadata.jsonl", "captions.jsonl", "texts.jsonl"):
        (tmp_path / name).write_text("[" * 100_000 + "\n")
    bad = BadSamples(1.0, "own")
    assert own_utterances("folder", str(tmp_path), 0, bad)[0] == [] and len(bad) == 1
    assert folder_images(tmp_path, 0, 10**6, bad) == [] and len(bad) == 2
    assert list(file_documents(tmp_path, 1e6, bad)) == [] and len(bad) == 5


@pytest.mark.parametrize("tag", ["../../../outside", "/tmp/outside", "", "own", "0" * 64])
def test_a_registrys_tag_is_no_path_and_must_be_the_weights_hash(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    import mlflow.artifacts
    from mlflow.tracking import MlflowClient

    there = model_source.fetch("models:/muomni@champion")
    own = weights_sha256(there)
    entry = model_source.resolve(model_source.reading_client(), "muomni", "models:/muomni@champion")
    tagged = replace(entry, tags=entry.tags | {"weights_sha256": own if tag == "own" else tag})

    def download(uri: str, dst_path: str, tracking_uri: str) -> str:
        return str(shutil.copytree(there, dst_path))

    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / "deep/er/state"))
    monkeypatch.setattr(model_source, "resolve", lambda *given: tagged)
    monkeypatch.setattr(MlflowClient, "get_model_version_download_uri", lambda *given: "mlflow-artifacts:/elsewhere")
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    if tag == "0" * 64:
        with pytest.raises(UserError, match="not those of its tag"):
            model_source.fetch("models:/muomni@champion")
        assert not list(tmp_path.rglob("model.safetensors"))
        return
    kept = model_source.fetch("models:/muomni@champion")
    assert kept.parent == tmp_path / "deep/er/state/models" and (kept.name == own) == (tag == "own")
    assert weights_sha256(kept) == own


def test_an_answer_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan({"text": 1}, 1, 0, 0, 2)
    text = "a\x1b[2Jb\x9b1m\r\x00\tc\n👨‍👩‍👧é"
    for stream in (False, True):
        assert show(iter([PlanEvent(plan), TextEvent(text), Answer(text, plan, True)]), stream).text == text
        assert capsys.readouterr().out.rstrip("\n") == "a\ufffd[2Jb\ufffd1m\ufffd\ufffd\tc\n👨‍👩‍👧é"
