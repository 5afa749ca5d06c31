"""Where runs from Prefect work: on this machine, as Kubernetes jobs, or as Slurm jobs.

A pool's template says what a worker makes of a run (https://docs.prefect.io/v3/concepts/work-pools). Those in
``deploy/`` are meant to be changed; ``pipelines.deploy`` hands them to Prefect's server as they are then.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muomni.errors import UserError
from pipelines.place import POOL

FOLDER = Path("deploy")


@dataclass(frozen=True)
class Pool:
    """A work pool.

    Attributes:
        name: in Prefect.
        type: of its workers.
        description: shown on Prefect's page.
        limit: runs at a time; None: as many as there are places for.
        template: file with its template; None: that of the worker.
        worker: what starts a worker; None: `muomni up` does.
    """

    name: str
    type: str
    description: str
    limit: int | None = None
    template: str | None = None
    worker: str | None = None

    def base_job_template(self) -> dict[str, Any]:
        """Its template, as Prefect takes it. Imports Prefect.

        Raises:
            UserError: if the file is missing or no template.
        """
        from prefect.server.schemas.actions import validate_base_job_template
        from prefect.workers.process import ProcessWorker

        if self.template is None:
            return ProcessWorker.get_default_base_job_template()
        path = FOLDER / self.template
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return validate_base_job_template(found)
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: no template of a work pool ({' '.join(str(error).split())})") from None


POOLS = {
    "here": Pool(POOL, "process", "one run at a time on this machine", limit=1),
    "kubernetes": Pool(
        "kubernetes",
        "kubernetes",
        "each run a Kubernetes job",
        template="kubernetes-pool.json",
        worker="prefect worker start --pool kubernetes --type kubernetes",
    ),
    "slurm": Pool(
        "slurm",
        "slurm",
        "each run a Slurm job, by Slurm's REST server",
        template="slurm-pool.json",
        worker="prefect worker start --pool slurm --type slurm",
    ),
    "slurm-jobs": Pool(
        "slurm-jobs",
        "process",
        "workers that are Slurm jobs themselves, and take a run at a time",
        worker="sbatch --export=NIL deploy/slurm-worker.sbatch CHECKOUT ENVIRONMENT_FILE",
    ),
}
