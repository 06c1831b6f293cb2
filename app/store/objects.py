"""Which object store the platform has: files under a folder, or S3."""

import re
from pathlib import Path

from app.settings import Settings
from app.store.file_store import FileStore
from app.store.object_store import ObjectStore, StoreError
from app.store.s3_store import S3Store

_S3_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


def open_target(uri: str, settings: Settings) -> ObjectStore:
    """A folder that somebody names to be written to, reached as the platform's own store is.

    Raises ValueError for an address of another form, StoreError for a local folder behind a link.
    """
    if uri.startswith("file:///"):
        path = Path(uri.removeprefix("file://"))
        if path.resolve() != path:  # it would lead elsewhere than it says, and what it says is what was allowed
            raise StoreError(f"target: there is a link on the way to {path.name!r}")
    return open_store(settings.model_copy(update={"object_store": uri}))


def open_store(settings: Settings) -> ObjectStore:
    """The store that the settings name. Raises ValueError for an address of another form."""
    address = settings.objects
    if address.startswith("file:///"):
        return FileStore(Path(address.removeprefix("file://")))
    if found := _S3_ADDRESS.fullmatch(address):
        return S3Store(
            found[1],
            found[2] or "",
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            addressing_style=settings.s3_addressing_style,
        )
    # The address is not repeated: people put credentials into addresses.
    raise ValueError("the object store's address must be file:///FOLDER or s3://BUCKET/PREFIX")
