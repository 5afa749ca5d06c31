"""Prefect's server on a sqlite file whose writers wait for each other: ``python -m pipelines.prefect_server start``.

What follows the module's name is what follows ``prefect server``. Prefect begins most transactions as readers. If one
of them writes after another has written meanwhile, sqlite refuses at once with "database is locked", whatever the
time-out, for what it has read is out of date (https://www.sqlite.org/rescode.html#busy_snapshot). Requests are then
answered with 503, and services try again. Here every transaction begins as a writer, as the ones do in which Prefect
has dealt with this itself, and waits for its turn up to the time-out.

Before it stands a guard (`pipelines.guard`), for which the environment has what `pipelines.access` put there.
"""

# isort: off
import pipelines.quiet  # noqa: F401  # before Prefect, which reads its settings when it is imported

# isort: on
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import MODELS_DEPENDENCIES
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_SERVER_API_AUTH_STRING
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from pipelines.access import LOCAL, NAMES, PUBLIC
from pipelines.guard import Guard

serve = uvicorn.run


class Waiting(AioSqliteConfiguration):
    """A sqlite database whose transactions all take the lock to write when they begin."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """As in Prefect, but always as with `with_for_update`."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def guarded(app: Any, **options: Any) -> None:
    """As `uvicorn.run`, which Prefect's command calls with its application, but with the guard before that."""
    names, public = ([name for name in os.environ.get(key, "").split(",") if name] for key in (NAMES, PUBLIC))
    serve(Guard(app, names or LOCAL, public, PREFECT_SERVER_API_AUTH_STRING.value()), **options)


def main() -> None:
    """Put the database in Prefect's place for it, and the guard before its server, then become its command."""
    address = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if address.startswith("sqlite"):  # somebody's PostgreSQL needs none of this
        MODELS_DEPENDENCIES["database_config"] = Waiting(connection_url=address)
    setattr(uvicorn, "run", guarded)  # noqa: B010
    sys.argv[1:1] = ["server"]
    app()


if __name__ == "__main__":
    main()
