"""Runs the versions beside this file, on the connection and inside the transaction that Registry.migrate opened."""

from alembic import context

from app.store.tables import metadata

# Batches: SQLite changes a column only by rebuilding its table.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
