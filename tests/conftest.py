"""What several test files share: a small tokenizer, a small model of random weights, and its checkpoint."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_project import make_project
from registered_models import measure, registered, train
from small_models import small_omni, small_tokenizer
from workplace import STEPS, Place, opened

from muomni.checkpoint import make_card, save_checkpoint
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first, so that of two processes none is left with one at the end."""
    first = {"test_workplace.py", "test_browser.py", "test_page.py", "test_export.py", "test_export_onnx.py"}
    first |= {"test_fuzz.py", "test_read_only.py", "test_access.py", "test_serve_life.py", "test_realtime.py"}
    first |= {"test_torchrun.py", "test_dask_bytes.py", "test_dask_cluster.py"}
    first |= {"test_document_blocks.py", "test_site_pages.py"}
    items.sort(key=lambda item: item.path.name not in first)


# What the environment says about MLflow before any test.
MLFLOW = {name: text for name, text in os.environ.items() if name.startswith("MLFLOW_")}


def forget_tracker() -> None:
    """Undo what registering leaves for the rest of a process, and for its children: where MLflow is."""
    if "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(MLFLOW)


@pytest.fixture(autouse=True)
def no_tracker_stays() -> Iterator[None]:
    """No test leaves its tracker to the next."""
    yield
    forget_tracker()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Omni, Tokenizer]:
    """A model and its tokenizer; tests must not change them."""
    return small_omni(), small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def checkpoint(small: tuple[Omni, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stage E would write for `small`."""
    model, tokenizer = small
    folder = tmp_path_factory.mktemp("checkpoints") / "omni"
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    tokenizer.save(vocabulary)
    card = make_card("omni", model, data={}, params={}, metrics={}, seconds=0.0)
    config = model.cfg.model_dump(mode="json")
    save_checkpoint(folder, model.state_dict(), config, card, {"tokenizer.model": vocabulary})
    return folder


@pytest.fixture(scope="session")
def registration(small: tuple[object, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A project whose model and parts are registered, which tests only read; and what the stage said of it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.setenv("DVC_EXP_NAME", "wide")
        train(folder, small[1], 0)
        measure(folder, 0.7, "a" * 64)
        found = registered(folder)
    forget_tracker()
    return folder, found


@pytest.fixture
def home(registration: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of `registration`, as the folder to work in."""
    monkeypatch.chdir(registration[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MUOMNI_STATE", str(registration[0] / "state"))
    return registration[0]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A workplace that is up, in a project of its own."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, STEPS)
    with opened(folder) as place:
        yield place
