"""Make the work pool and the deployments: ``python -m pipelines.deploy``, which `muomni up` runs.

The run forms are made from the flows' parameters as they are now, in the checkout that is the working directory.
"""

# isort: off
import pipelines.quiet  # noqa: F401  # before Prefect, which reads its settings when it is imported

# isort: on
import sys
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from pipelines.flows import FLOWS
from pipelines.place import POOL


def make_pool() -> None:
    """The work pool: one run at a time, since there is one GPU."""
    with get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        try:
            client.read_work_pool(POOL)
            client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=1, base_job_template=template))
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=POOL,
                    type="process",
                    description="one run at a time on this machine",
                    base_job_template=template,
                    concurrency_limit=1,
                )
            )


def main() -> None:
    """Make or renew everything."""
    make_pool()
    for flow in FLOWS:
        deployment: Any = flow.to_deployment(  # a coroutine only where a loop runs
            name=flow.name,
            description=flow.description,
            work_pool_name=POOL,
            job_variables={"working_dir": str(Path.cwd())},
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployment.apply()
        print(f"deployment {flow.name}/{deployment.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
