"""From what people name as a source to a folder that can be read."""

from pathlib import PurePosixPath

from app.core.model_specs import Source
from app.core.source_rules import split
from app.settings import Settings
from app.store.folders import FolderFile
from app.store.local_folder import LocalFolder
from app.store.object_store import StoreError
from app.store.s3_folder import S3Folder, open_s3_folder


def open_source(source: Source, settings: Settings) -> LocalFolder | S3Folder:
    """The folder that the source names; nothing of it is read yet. Raises StoreError for an unknown profile."""
    bucket, path = split(source.uri)
    if not bucket:
        return LocalFolder(PurePosixPath("/", path))
    try:
        return open_s3_folder(
            bucket,
            path,
            endpoint_url=source.endpoint_url or settings.s3_endpoint_url,
            region=source.region or settings.s3_region,
            addressing_style=source.addressing_style or settings.s3_addressing_style,
            profile=source.profile,
        )
    except ValueError:
        raise StoreError("source: boto3 cannot use this endpoint_url") from None


def open_file(source: Source, settings: Settings) -> tuple[LocalFolder | S3Folder, FolderFile]:
    """The file that the source names, and the folder by which it is read.

    Raises RefusedEntry for a link or whatever else is no plain file, StoreError where there is none.
    """
    parent, _, name = source.uri.rstrip("/").rpartition("/")
    uri = f"{parent}/" if parent == "file://" else parent
    folder = open_source(Source(**source.model_dump(include=set(Source.model_fields)) | {"uri": uri}), settings)
    return folder, folder.find(name)


def own_prefix(source: Source, settings: Settings) -> str | None:
    """Where the source lies in the platform's own store, as a prefix of its objects' names; None when it does not."""
    if source.profile or (source.endpoint_url or settings.s3_endpoint_url) != settings.s3_endpoint_url:
        return None
    bucket, path = split(source.uri)
    own_bucket, own_path = split(settings.objects)
    below = f"{path}/".removeprefix(f"{own_path}/" if own_path else "")
    inside = bucket == own_bucket and (not own_path or f"{path}/".startswith(f"{own_path}/"))
    return below if inside and below.strip("/") else None
