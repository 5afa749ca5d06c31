"""Where a workplace's runs are tracked: by a server that is there already, or by one that `muomni up` starts.

The one that it starts works on ``mlruns/mlflow.db``, or on the database that ``MLFLOW_BACKEND_STORE_URI`` names, for
example PostgreSQL. Runs write to the sqlite file themselves, without the server; to such a database they write by the
server. So they need neither its password nor, where the server hands on artefacts, the object store's.

The variables are MLflow's own. Addresses with passwords are in environments only, never on a command line.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.access import Access
from pipelines.addresses import without_userinfo
from pipelines.programs import Program, free

STORE, ROOT = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"
DESTINATION, TRACKER = "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Tracker:
    """The tracker of a workplace.

    Attributes:
        access: where it listens, and who may talk to it.
        port: of the server that is started.
    """

    access: Access
    port: int

    @property
    def elsewhere(self) -> str | None:
        """The address of a server that is there already; None if one is started."""
        found = os.environ.get(TRACKER, "")
        return found if found.startswith("http") else None

    @property
    def address(self) -> str:
        """Of the pages, as people may see it."""
        return without_userinfo(self.elsewhere or f"http://{self.access.near}:{self.port}")

    def clients(self) -> dict[str, str]:
        """The environment of what writes to the tracker."""
        if self.elsewhere or STORE not in os.environ:
            return {}
        pair = self.access.pair
        shown = {} if pair is None else {"MLFLOW_TRACKING_USERNAME": pair[0], "MLFLOW_TRACKING_PASSWORD": pair[1]}
        return {TRACKER: self.address} | shown

    def program(self, at: list[str]) -> Program | None:
        """The server to start, listening as the options `at` say; None if there is one.

        Raises:
            UserError: if its port is taken.
        """
        if self.elsewhere:
            return None
        free(self.access.host, self.port, "the MLflow UI", "--mlflow-port")
        artifacts = Path("mlruns/artifacts").absolute()
        artifacts.parent.mkdir(exist_ok=True)
        if STORE in os.environ:
            # What MLflow hands on lies where this says; with a root of its own, clients write there themselves.
            own = {STORE: os.environ[STORE], DESTINATION: os.environ.get(DESTINATION) or artifacts.as_uri()}
        else:
            store = os.environ.get(TRACKER) or f"sqlite:///{Path('mlruns/mlflow.db').absolute()}"
            own = {STORE: store, ROOT: os.environ.get(ROOT) or artifacts.as_uri()}
        serve = [sys.executable, "-m", "mlflow", "server", *at, "--workers", "1"]
        guard = [] if self.access.token is None else ["--app-name", "basic-auth"]
        return Program("mlflow", [*serve, *guard], own | self.access.mlflow(self.port))
