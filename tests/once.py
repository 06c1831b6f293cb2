"""What tests of one process would work out anew, again and again, and always comes to the same: worked out once."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
from botocore.loaders import create_loader
from httpx import create_ssl_context
from sqlalchemy import URL, Engine, create_engine

from app.catalog import catalog
from app.store import connections


@pytest.fixture(scope="session", autouse=True)
def catalogue_read_once() -> Iterator[None]:
    """YAML takes longer than all else that a platform does before it is opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_parse", lru_cache(64)(catalog._parse))
        yield


@pytest.fixture(scope="session", autouse=True)
def clients_read_their_files_once() -> Iterator[None]:
    """httpx reads all authorities that it trusts for each client, and botocore all that it knows of S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", lru_cache(8)(create_ssl_context))
        patch.setattr("botocore.session.create_loader", lru_cache(8)(create_loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_compiled_once() -> Iterator[None]:
    """Every engine compiles each statement on its first use. Those of SQLite share what they have compiled."""
    first: dict[Any, Engine] = {}

    def create(url: URL, **options: Any) -> Engine:
        engine = create_engine(url, **options)
        if url.get_backend_name() == "sqlite":
            reads = options.get("json_deserializer")
            if reads not in first:
                first[reads] = create_engine("sqlite://", json_deserializer=reads)
                first[reads].connect().close()  # which tells the dialect what it has to know of the database
            engine.dialect = engine.pool._dialect = first[reads].dialect
            engine._compiled_cache = first[reads]._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "create_engine", create)
        yield
    for engine in first.values():
        engine.dispose()
