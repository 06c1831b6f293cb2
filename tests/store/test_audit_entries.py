"""Audit entries stay as they are, for their time."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.core.errors import Conflict
from app.core.records import AuditEntry
from app.store.database import Registry
from tests.store.records import AUDIT


def audit_entry(days_ago: float, number: int = 1) -> AuditEntry:
    moment = datetime.now(UTC) - timedelta(days_ago)
    return AUDIT.model_copy(update={"id": f"aud-{number}", "created_at": moment})


def test_audit_entries_never_change(registry: Registry) -> None:
    young, old = audit_entry(1), audit_entry(500, 2)
    registry.put(young, old)
    for entry in (young, old):
        with pytest.raises(Conflict, match="stay as they are"):
            registry.put(entry.model_copy(update={"status": 500}))
    assert registry.find(AuditEntry, newest_first=True) == [young, old]


def test_not_even_sql_changes_or_empties_the_audit(registry: Registry) -> None:
    registry.put(audit_entry(1))
    statements = ["UPDATE audit SET status = 500", "DELETE FROM audit"]
    if registry._engine.dialect.name == "postgresql":
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(sa.exc.IntegrityError), registry._engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert [entry.status for entry in registry.find(AuditEntry)] == [202]


def test_audit_entries_stay_for_400_days(registry: Registry) -> None:
    young, old = audit_entry(399.9), audit_entry(400.1, 2)
    registry.put(young, old)
    with pytest.raises(Conflict, match="for their time"):
        registry.delete(young)
    with pytest.raises(Conflict, match="for their time"):
        registry.delete_before(AuditEntry, datetime.now(UTC))
    assert registry.delete_before(AuditEntry, datetime.now(UTC) - timedelta(400)) == 1
    assert registry.find(AuditEntry) == [young]
