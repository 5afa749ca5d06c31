"""The weights of an evaluation as an MLflow logged model with the metrics found there, so that MLflow ranks them.

In the page of the experiment, tab Models, or with ``search_logged_models(order_by=...)``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.answers import NotMLflow, arrived, send_files

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KIND = "checkpoint"  # the model type


def log_checkpoint(
    client: "MlflowClient",
    experiment: str,
    run_id: str,
    run: Mapping[str, Any],
    folder: Path,
    line: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Log a folder of weights, once however often it is tried.

    Args:
        client: of the tracker.
        experiment: its id.
        run_id: MLflow's id of the stage's run.
        run: what its ``run.json`` says.
        folder: the weights.
        line: of the metrics file: ``step`` and ``time``.
        metrics: of the evaluation, with the values that the run's points have.

    Raises:
        NotMLflow: if what answers is something else.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric  # takes seconds; see `sender.connect`

    step = int(line["step"])
    name = f"{run['stage']}-step-{step:06d}"
    found = list(client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{name}'"))
    ready = [model for model in found if model.status == LoggedModelStatus.READY]
    if not found:
        tags = {**run["tags"], "step": str(step)}
        params = {"stage": run["stage"], "step": str(step)}
        found = [client.create_logged_model(experiment, name, run_id, tags, params, KIND)]
    model_id = (ready or found)[0].model_id
    if not model_id:
        raise NotMLflow("it answers, but not as MLflow does: it made a model without a name")
    if not ready:
        send_files(client, client.get_logged_model(model_id).artifact_location, folder)
        # With step, time and value of the run's own points, so that the run gets none twice.
        client.log_batch(
            run_id,
            metrics=[
                Metric(key, float(value), int(line["time"] * 1000), step, model_id=model_id)
                for key, value in metrics.items()
            ],
        )
        outputs = client.get_run(run_id).outputs
        if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
        client.finalize_logged_model(model_id, "READY")
        arrived("a model", [str(LoggedModelStatus.READY)], [str(client.get_logged_model(model_id).status)])
    for model in found:  # a request whose answer came too late was carried out, and sent again
        if model.model_id != model_id:
            client.delete_logged_model(model.model_id)
