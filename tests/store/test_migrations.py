"""Migrations make what the tables say, whoever else migrates, and older databases keep what they hold."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.core.key_limits import NO_LIMITS
from app.core.records import ApiKey, Endpoint, Event, Workspace
from app.store.connections import driver_url, open_engine
from app.store.database import Registry, migration_config
from app.store.tables import metadata
from tests.store.records import ALL

THEN = "2026-01-31 09:30:00+00:00"
ROWS = {
    "workspaces": {"id": "default", "name": "default"},
    "endpoints": {
        "id": "ep-1",
        "workspace": "default",
        "spec": json.dumps({"name": "demo", "model": "m-1", "machine_type": "gpu-1"}),
        "managed_by": "api",
        "state": "healthy",
        "reason": "",
        "generation": 2,
        "observed_generation": 2,
        "running_units": 1,
    },
    "api_keys": {
        "id": "key-1",
        "workspace": "default",
        "role": "admin",
        "hash": "h",
        "prefix": "mu-abc",
        "description": "",
    },
    "events": {"id": "ev-1", "workspace": "default", "subject": "ep-1", "kind": "created", "message": "created"},
}


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """Here every test migrates for itself."""
    return empty_database_url


@pytest.fixture
def old_database(database_url: str) -> str:
    """One of the second version, as a platform left it."""
    url = driver_url(database_url)
    engine = open_engine(url, migrating=True)
    with engine.begin() as connection:
        command.upgrade(migration_config(connection), "0002")
        for table, row in ROWS.items():
            values = {"created_at": THEN, **row}
            names = ", ".join(values)
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)
    engine.dispose()
    return database_url


def test_the_third_version_takes_over_what_there_is(old_database: str) -> None:
    registry = Registry(old_database)
    registry.migrate()
    [endpoint] = registry.find(Endpoint)
    assert (endpoint.machine_type, endpoint.placement, endpoint.deleted_at) == ("gpu-1", "", None)
    assert endpoint.spec.machine_type == "gpu-1"
    [key] = registry.find(ApiKey)
    assert (key.endpoints, key.member_id, key.last_used_at, key.limits) == (None, None, None, NO_LIMITS)
    [event] = registry.find(Event)
    assert (event.actor, event.request_id) == ("platform", "")
    assert registry.take_turn() == 1
    registry.put(endpoint, key, event, *registry.find(Workspace))
    registry.close()


def test_migrations_make_what_the_tables_say(registry: Registry, database_url: str) -> None:
    registry.migrate()
    engine = sa.create_engine(driver_url(database_url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_processes_migrate_at_once(database_url: str, open_registry: Callable[[], Registry]) -> None:
    script = (
        "import sys; from app.store.database import Registry; registry = Registry(sys.argv[1]);"
        "print('ready', flush=True); sys.stdin.readline(); registry.migrate()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    open_registry().put(*ALL)
