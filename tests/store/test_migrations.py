"""Databases of earlier versions keep what they hold."""

import json

import pytest
import sqlalchemy as sa
from alembic import command

from app.core.records import ApiKey, Endpoint, Event, Workspace
from app.store.connections import driver_url, open_engine
from app.store.database import Registry, migration_config

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
    assert (key.endpoints, key.member_id, key.last_used_at) == (None, None, None)
    [event] = registry.find(Event)
    assert (event.actor, event.request_id) == ("platform", "")
    assert registry.take_turn() == 1
    registry.put(endpoint, key, event, *registry.find(Workspace))
    registry.close()
