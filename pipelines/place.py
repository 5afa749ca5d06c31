"""Where the workplace (`pipelines.workplace`) lives, and the settings of Prefect and MLflow in it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines import locks
from pipelines.run import state_root

POOL = "gpu"


def root() -> Path:
    """Where the workplace keeps its databases, logs and addresses."""
    return state_root() / "workplace"


def info() -> dict[str, Any] | None:
    """The running workplace's addresses, or None if there is none."""
    if locks.holder(root() / "lock") is None:
        return None
    with suppress(OSError, ValueError):
        found = json.loads((root() / "workplace.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def settings(api: str | None) -> dict[str, str]:
    """Prefect's and MLflow's settings in the environment: own folders, nothing sent anywhere, quick reactions.

    Args:
        api: address of the Prefect API; None for a temporary server of each flow.
    """
    home = root() / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    found = {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_STATIC_DIRECTORY": str(root() / "pages"),
        "PREFECT_UI_API_URL": "/api",  # beside its pages, under whatever name a browser came by
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # One run at a time is the rule here, so one that waits is not late.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few on a busy machine
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # evaluations of language models by others: four processes more
        "DVC_NO_ANALYTICS": "1",
    }
    return found | ({"PREFECT_API_URL": api} if api else {})
