"""The registry's commands on a real sqlite file: references, comparison, promotion by the rule, and going back."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muomni.cli import main
from muomni.errors import UserError
from muomni.registry_config import RegistryConfig
from pipelines.promotion import PARTS, check_rule
from pipelines.registry import compare, listing, mark, promote, reading_client, registry_client, rollback
from pipelines.sender import experiment_id
from pipelines.versions import resolve, split, write_figures

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[1]
CFG = RegistryConfig(
    name="muomni",
    promote_by="accuracy",
    higher_is_better=True,
    min_gain=0.01,
    guards={"dictation_cer": 0.05},
    components=True,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry; making one takes seconds."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", "")
        registry_client().search_registered_models()
    return folder / "mlruns/mlflow.db"


@pytest.fixture
def client(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["MlflowClient"]:
    """A registry of its own, in a folder to work in that has a params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (tmp_path / "mlruns").mkdir()
    shutil.copy(database, tmp_path / "mlruns/mlflow.db")
    shutil.copy(ROOT / "profiles/tiny.yaml", tmp_path / "params.yaml")
    yield registry_client()


def figure(value: float, n: int = 100, spread: float = 0.02) -> dict[str, Any]:
    return {"value": value, "n": n, "interval": [round(value - spread, 6), round(value + spread, 6)]}


def add(
    client: "MlflowClient",
    accuracy: float,
    cer: float = 0.1,
    held_out: str = "a" * 64,
    name: str = "muomni",
    parts: str = "{}",
    more: dict[str, Any] | None = None,
) -> str:
    """A version with figures, as `pipelines.logged` adds it but for the model itself, which nothing here asks."""
    run = client.create_run(experiment_id(client)).info
    figures = {"accuracy": figure(accuracy), "dictation_cer": figure(cer), "scene_blind": figure(0.3), **(more or {})}
    write_figures(client, run.run_id, figures, held_out)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {"revision": "0123456789abcdef", "params_hash": "abc123", PARTS: parts}
    version = str(client.create_model_version(name, run.artifact_uri, run.run_id, tags=tags).version)
    client.set_registered_model_alias(name, "challenger", version)
    return version


def champion(client: "MlflowClient", name: str = "muomni") -> str:
    return str(client.get_model_version_by_alias(name, "champion").version)


def test_references() -> None:
    assert split("3", "muomni") == ("muomni", "3") and split("champion", "muomni") == ("muomni", "champion")
    assert split("muomni-thinker/2", "muomni") == split("models:/muomni-thinker/2", "x") == ("muomni-thinker", "2")
    assert split("muomni-thinker@champion", "x") == ("muomni-thinker", "champion")
    for bad in ("", "models:/", "muomni/", "muomni/latest", "@champion", "a/b/3", "it's"):
        with pytest.raises(UserError, match="no version; give a number, an alias"):
            split(bad, "muomni")


def test_a_version_that_is_not_there_is_one_line(client: "MlflowClient") -> None:
    with pytest.raises(UserError, match="no model 'muomni' is registered; `muomni registry list`"):
        resolve(client, "muomni", "1")
    add(client, 0.7)
    with pytest.raises(UserError, match="^7: muomni has no version 7"):
        resolve(client, "muomni", "7")
    with pytest.raises(UserError, match=r"no alias 'chalenger' \(did you mean 'challenger'\?\)"):
        resolve(client, "muomni", "chalenger")


def test_marks_go_by_direction_and_intervals() -> None:
    assert mark("accuracy", figure(0.9), figure(0.8)) == "++" and mark("accuracy", figure(0.8), figure(0.9)) == "--"
    assert mark("accuracy", figure(0.81), figure(0.8)) == "+" and mark("accuracy", figure(0.8), figure(0.8)) == "="
    assert (
        mark("dictation_cer", figure(0.3), figure(0.2)) == "--" and mark("talker_cer", figure(0.1), figure(0.2)) == "++"
    )
    assert mark("scene_blind", figure(0.1), figure(0.9)) == "", "neither way is better of a baseline"
    assert mark("swaps_passed", {"value": 6, "n": 6}, {"value": 5, "n": 6}) == "+", "no interval, no certainty"


def test_comparison_shows_every_figure_with_n_interval_and_marks(client: "MlflowClient", tmp_path: Path) -> None:
    add(client, 0.7)
    add(client, 0.8, cer=0.11, more={"talker_cer": figure(0.2, 60)})
    found = compare(client, "muomni", ["1", "challenger"])
    assert found.head() == ["figure", "better", "1", "2 challenger"]
    assert found.rows() == [
        ["accuracy", "higher", "0.7 [0.68, 0.72] n 100", "0.8 [0.78, 0.82] n 100 ++"],
        ["dictation_cer", "lower", "0.1 [0.08, 0.12] n 100", "0.11 [0.09, 0.13] n 100 -"],
        ["scene_blind", "", "0.3 [0.28, 0.32] n 100", "0.3 [0.28, 0.32] n 100"],
        ["talker_cer", "lower", "", "0.2 [0.18, 0.22] n 60"],
    ]
    assert "0.8 [0.78, 0.82] n 100 ++" in found.text() and "| accuracy | higher | 0.7 [0.68" in found.markdown()
    found.chart(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    found.chart(tmp_path / "chart.html")
    page = (tmp_path / "chart.html").read_text()
    assert "0.8 [0.78, 0.82] n 100 ++" in page and "data:image/png;base64," in page and "http" not in page
    with pytest.raises(UserError, match="ends in .png or .html"):
        found.chart(tmp_path / "chart.jpg")
    with pytest.raises(UserError, match="cannot be written"):
        found.chart("/proc/none/chart.png")


def test_nothing_is_marked_on_other_held_out_data(client: "MlflowClient") -> None:
    add(client, 0.7)
    add(client, 0.8, held_out="b" * 64)
    found = compare(client, "muomni", ["1", "2"])
    assert not found.same and found.rows()[0][3] == "0.8 [0.78, 0.82] n 100"
    assert "1: aaaaaaaaaaaa, 2 challenger: bbbbbbbbbbbb" in found.note()
    with pytest.raises(UserError, match="name two versions at least"):
        compare(client, "muomni", ["1"])


def test_promotion_needs_a_better_figure_on_the_same_data_and_no_guarded_one_worse(client: "MlflowClient") -> None:
    add(client, 0.7)
    first = promote(CFG)
    assert first.promoted and "there was no champion" in first.reason and champion(client) == "1"
    assert promote(CFG, "1").reason == "muomni version 1 is champion already"
    for accuracy, cer, data, why in (
        (0.705, 0.1, "a", "accuracy 0.7, the challenger has 0.705 and needs more, by 0.01 at least"),
        (0.9, 0.1, "b", "measured on other held-out data"),
        (0.9, 0.2, "a", "dictation_cer 0.1 would become 0.2, worse by more than 0.05"),
    ):
        add(client, accuracy, cer, data * 64)
        found = promote(CFG)
        assert not found.promoted and why in found.reason and found.champion == champion(client) == "1"
    add(client, 0.75, 0.14)
    found = promote(CFG)
    assert found.promoted and found.reason == "accuracy 0.75 beats muomni version 1 with 0.7"
    assert champion(client) == found.champion == found.version == "5"


def test_a_rule_that_contradicts_itself_is_refused() -> None:
    check_rule(CFG)
    with pytest.raises(UserError, match="of accuracy higher is better; make it true"):
        check_rule(CFG.model_copy(update={"higher_is_better": False}))
    with pytest.raises(UserError, match="registry.guards: neither way is better of 'speed'"):
        check_rule(CFG.model_copy(update={"guards": {"speed": 0.1}}))


def test_rollback_goes_back_further_each_time_and_takes_the_parts_along(client: "MlflowClient") -> None:
    add(client, 0.5, name="muomni-codec")
    add(client, 0.5, name="muomni-codec")
    with pytest.raises(UserError, match="muomni: has no champion to go back from"):
        rollback(CFG)
    for accuracy, part in ((0.6, "1"), (0.7, "1"), (0.8, "2"), (0.9, "2")):
        add(client, accuracy, parts=f'{{"muomni-codec": "{part}"}}')
        assert promote(CFG).promoted
    assert champion(client, "muomni-codec") == "2"
    client.delete_model_version("muomni", "3")
    assert rollback(CFG).reason == "muomni version 2 is champion again instead of 4", "version 3 is no more"
    assert champion(client) == "2" and champion(client, "muomni-codec") == "1"
    stage = promote(CFG, "4", again=False)
    assert not stage.promoted and "rolled back from; `muomni registry promote 4` takes it again" in stage.reason
    assert rollback(CFG).version == champion(client) == "1"
    with pytest.raises(UserError, match="no champion before version 1 to go back to"):
        rollback(CFG)
    assert promote(CFG, "4").promoted and promote(CFG, "4", again=False).promoted and rollback(CFG).version == "1"


def test_commands(client: "MlflowClient", tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(client, 0.7)
    add(client, 0.5, name="muomni-codec", more={"codec_cer": figure(0.02)})
    add(client, 0.5, name="muomniac")
    assert main(["registry", "promote"]) == 0
    add(client, 0.8)
    add(client, 0.6)
    capsys.readouterr()
    assert main(["registry", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["muomni", "3", "challenger"],
        ["muomni", "2", lines[2][2]],
        ["muomni", "1", "champion"],
        ["muomni-codec", "1", "challenger"],
    ]
    assert lines[3][-7:] == ["aaaaaaaaaaaa", "accuracy", "0.7", "[0.68,", "0.72]", "n", "100"]
    assert lines[4][-6:-4] == ["codec_cer", "0.02"]
    assert main(["registry", "compare", "champion", "2", "muomni/3", "--chart", "all.png"]) == 0
    assert "0.8 [0.78, 0.82] n 100 ++" in capsys.readouterr().out and Path("all.png").is_file()
    assert main(["registry", "promote"]) == 1
    assert "stays champion: accuracy 0.7, the challenger has 0.6 and needs more" in capsys.readouterr().out
    assert main(["registry", "promote", "2"]) == 0 and main(["registry", "rollback"]) == 0
    assert "muomni version 1 is champion again instead of 2" in capsys.readouterr().out
    for bad in (["rollback"], ["compare", "1"], ["compare", "1", "9"], ["promote", "muomni-codec/1"]):
        assert main(["registry", *bad]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_looking_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(UserError, match="no registry here yet; run `dvc repro register`"):
        reading_client()
    assert list(tmp_path.iterdir()) == []


def test_listing_is_of_the_model_and_its_parts_alone(client: "MlflowClient") -> None:
    assert listing(client, "muomni") == []
    for name in ("muomni", "muomni-codec", "muomniac", "other"):
        add(client, 0.7, name=name)
    assert [one.name for one in listing(client, "muomni")] == ["muomni", "muomni-codec"]
