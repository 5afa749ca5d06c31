"""Writers of Prefect's database wait for each other."""

import asyncio
from pathlib import Path

import pytest

from pipelines.prefect_server import Waiting

from prefect.server.database.configurations import AioSqliteConfiguration  # isort: skip  # after pipelines.quiet
from sqlalchemy import text  # isort: skip
from sqlalchemy.exc import OperationalError  # isort: skip


async def write_what_was_read(config: AioSqliteConfiguration, writers: int) -> list[int]:
    """Have several writers at once add one to what they read; what the numbers then are."""
    engine = await config.engine()
    async with await config.session(engine) as session, config.begin_transaction(session):
        await session.execute(text("create table numbers (number integer)"))

    async def write() -> None:
        async with await config.session(engine) as session, config.begin_transaction(session):
            count = (await session.execute(text("select count(*) from numbers"))).scalar_one()
            await asyncio.sleep(0.05)  # time for the others to read the same
            await session.execute(text(f"insert into numbers values ({count})"))

    await asyncio.gather(*(write() for _ in range(writers)))
    async with await config.session(engine) as session:
        rows = await session.execute(text("select number from numbers order by number"))
        return [row[0] for row in rows]


def test_writers_that_read_first_all_get_their_turn(tmp_path: Path) -> None:
    address = f"sqlite+aiosqlite:///{tmp_path}/waiting.db"
    assert asyncio.run(write_what_was_read(Waiting(connection_url=address), 5)) == [0, 1, 2, 3, 4]


def test_prefect_alone_refuses_them_which_is_why(tmp_path: Path) -> None:
    """If this fails, Prefect has dealt with it, and `pipelines.prefect_server` can go."""
    address = f"sqlite+aiosqlite:///{tmp_path}/plain.db"
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(write_what_was_read(AioSqliteConfiguration(connection_url=address), 5))
