"""Which sources a key may name: an operator's own folders and servers are not everybody's."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Protocol

from app.core.errors import Forbidden
from app.core.model_specs import Source

OWN_FOLDERS = ("models", "jobs", "logs", "routing")
"""What the platform itself writes into its object store, everybody's things side by side."""


class SourceLimits(Protocol):
    """What the operator allows, as Settings say it."""

    @property
    def file_roots(self) -> Sequence[PurePath]: ...

    @property
    def source_endpoints(self) -> Sequence[str]: ...

    @property
    def source_profiles(self) -> Sequence[str]: ...

    @property
    def write_roots(self) -> Sequence[str]: ...

    @property
    def s3_endpoint_url(self) -> str | None: ...

    @property
    def objects(self) -> str: ...


def check_source(source: Source, *, admin: bool, settings: SourceLimits, field: str = "source") -> None:
    """Raises Forbidden for a source, in a request's `field`, that only a platform admin's key may name.

    Links are no way around: a local folder is opened without following any, so a path says where it leads.
    """
    if admin:
        return
    _check_not_own(source.uri, settings, field)
    bucket, path = split(source.uri)
    if not bucket:
        if not any(PurePath("/", path).is_relative_to(root) for root in settings.file_roots):
            raise Forbidden(
                f"{field}.uri is outside the folders that the operator allows (MODELUNIT_FILE_ROOTS); "
                "a platform admin's key (role admin, workspace default) may name any.",
                f"{field}.uri",
            )
        return
    listed = {url.rstrip("/") for url in (*settings.source_endpoints, settings.s3_endpoint_url or "")} - {""}
    if source.endpoint_url and source.endpoint_url.rstrip("/") not in listed:
        raise Forbidden(
            f"{field}.endpoint_url is not among the servers that the operator allows (MODELUNIT_SOURCE_ENDPOINTS); "
            "a platform admin's key (role admin, workspace default) may name any.",
            f"{field}.endpoint_url",
        )
    if source.profile and source.profile not in settings.source_profiles:
        raise Forbidden(
            f"{field}.profile is not among the credentials that the operator lends (MODELUNIT_SOURCE_PROFILES); "
            "a platform admin's key (role admin, workspace default) may name any.",
            f"{field}.profile",
        )


def check_target(uri: str, *, admin: bool, workspace: str, settings: SourceLimits, field: str) -> None:
    """Raises Forbidden for a folder to write to, in a request's `field`, that only a platform admin's key may name.

    To read from a folder is no leave to write there: others' sources lie beside one's own.
    """
    if admin:
        return
    _check_not_own(uri, settings, field)
    bucket, path = split(uri)
    for root in settings.write_roots:
        root_bucket, root_path = split(root)
        allowed = f"{root_path}/{workspace}/".lstrip("/")
        if bucket == root_bucket and f"{path}/".startswith(allowed):
            return
    folders = " or ".join(f"{root.rstrip('/')}/{workspace}" for root in settings.write_roots)
    told = f"is not in {folders}" if folders else "names a folder to write to, and the operator allows none"
    raise Forbidden(
        f"{field}.uri {told} (MODELUNIT_WRITE_ROOTS); a platform admin's key (role admin, workspace default) may "
        "name any.",
        f"{field}.uri",
    )


def _check_not_own(uri: str, settings: SourceLimits, field: str) -> None:
    own_bucket, own_path = split(settings.objects)
    if any(_overlap(split(uri), (own_bucket, f"{own_path}/{folder}")) for folder in OWN_FOLDERS):
        raise Forbidden(f"{field}.uri is where the platform keeps what is everybody's.", f"{field}.uri")


def split(uri: str) -> tuple[str, str]:
    """(bucket, path) of s3://BUCKET/PATH; the bucket of file:///PATH is "". A path neither begins nor ends with '/'."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    if scheme == "s3":
        return bucket, path.strip("/")
    return "", "/".join(part for part in path.split("/") if part)


def _overlap(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether one of two folders is, or contains, the other."""
    paths = [f"{path}/".lstrip("/") for _, path in (one, other)]
    return one[0] == other[0] and (paths[0].startswith(paths[1]) or paths[1].startswith(paths[0]))
