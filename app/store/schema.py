"""Which version of the schema a registry has: looked at, never changed."""

from dataclasses import dataclass
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.store.connections import driver_url, open_engine
from app.store.database import migration_config


@dataclass(frozen=True)
class Schema:
    """Of a registry that is there."""

    found: str | None
    """None: there are no tables yet."""
    newest: str
    """What this program writes."""
    known: bool
    """Whether this program can migrate from there."""


def find_schema(url: str) -> Schema | None:
    """None for a SQLite file that is not there. Raises ValueError for another address, SQLAlchemyError, OSError."""
    parsed = driver_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return None
    engine = open_engine(parsed)
    try:
        with engine.connect() as connection:
            scripts = ScriptDirectory.from_config(migration_config(connection))
            found = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    newest = scripts.get_current_head()
    assert newest is not None
    known = found is None or found in {script.revision for script in scripts.walk_revisions()}
    return Schema(found, newest, known)
