"""Comparing trainings of a stage: real runs in a real MLflow database."""

from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines.compare_runs import main
from pipelines.sender import connect, experiment_id


def test_what_differs_and_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oldest first; equal parameters, other stages and trainings that have not ended are left out."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = connect()
    place = experiment_id(client)
    for number, (stage, kernel, error, ended) in enumerate(
        [
            ("d-codec", 3, 0.3949, True),
            ("a-thinker", 9, 1.0, True),
            ("d-codec", 1, 0.4262, True),
            ("d-codec", 7, 0.1, False),
        ]
    ):
        tags = {"stage": stage, **({"dvc_exp": "kernel-1"} if kernel == 1 else {})}
        run = client.create_run(place, start_time=1000 + number, tags=tags)
        client.log_param(run.info.run_id, "codec.kernel", kernel)
        client.log_param(run.info.run_id, "codec.codes", 128)
        client.log_metric(run.info.run_id, "valid_mel_error", error)
        client.log_metric(run.info.run_id, "loss", 9.0)
        if ended:
            client.set_terminated(run.info.run_id)
    main(["d-codec"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][1] == "kernel-1"
    assert lines[1:] == [["codec.kernel", "3", "1"], ["valid_mel_error", "0.3949", "0.4262"]]
    with pytest.raises(UserError, match="1 finished trainings"):
        main(["a-thinker"])
