"""Make the work pool and the deployments: ``python -m pipelines.deploy``, which `muomni up` runs.

The run forms are made from the flows' parameters as they are now, in the checkout that is the working directory.
"""

# isort: off
import pipelines.quiet  # noqa: F401  # before Prefect, which reads its settings when it is imported

# isort: on
import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound

from muomni.errors import UserError, ending_in_one_line
from pipelines.flows import FLOWS
from pipelines.pools import POOLS, Pool


def make_pool(pool: Pool) -> None:
    """Make the work pool, or renew its template and limit; raises UserError if its template cannot be used."""
    template = pool.base_job_template()
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool.name)
            client.update_work_pool(pool.name, WorkPoolUpdate(concurrency_limit=pool.limit, base_job_template=template))
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=pool.name,
                    type=pool.type,
                    description=pool.description,
                    base_job_template=template,
                    concurrency_limit=pool.limit,
                )
            )


def deploy(pool: Pool, variables: dict[str, Any]) -> None:
    """Make or renew everything.

    Args:
        pool: where the runs work.
        variables: of its template, for all deployments.
    """
    make_pool(pool)
    for flow in FLOWS:
        deployment: Any = flow.to_deployment(  # a coroutine only where a loop runs
            name=flow.name,
            description=flow.description,
            work_pool_name=pool.name,
            job_variables=variables,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployment.apply()
        print(f"deployment {flow.name}/{deployment.name}", file=sys.stderr)


def main() -> None:
    """Read the command line and tell the server.

    Raises:
        UserError: if a variable is not NAME=VALUE.
    """
    parser = argparse.ArgumentParser(description="Tell Prefect's server of the work pool and the flows.")
    parser.add_argument("--pool", choices=POOLS, default="here", help="where runs work (default: %(default)s)")
    parser.add_argument(
        "--checkout", default=str(Path.cwd()), help="the checkout as a worker sees it (default: this folder)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the template")
    given = parser.parse_args()
    variables = {"working_dir": given.checkout}
    with ending_in_one_line():
        for word in given.set:
            name, equals, value = word.partition("=")
            if not equals:
                raise UserError(f"--set {word}: expected NAME=VALUE")
            variables[name] = yaml.safe_load(value)
        deploy(POOLS[given.pool], variables)


if __name__ == "__main__":
    main()
