"""S3 by boto3, whose only owner this is: a client, how it is asked, and what its failures mean."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NotConnected
from botocore.parsers import ResponseParserError

from app.store.object_store import ObjectMissing, StoreError, StoreUnavailable

Refusal = ClientError
"""What a server says instead of doing as it is asked; `code_of` tells which it is."""
MISSING_CODES = {"404", "NoSuchKey", "NotFound"}
_PASSING_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
_PASSING_ERRORS = (NotConnected, HTTPClientError, IncompleteReadError, ResponseParserError)
"""Nothing came, or something came that was cut off."""
_PART_BYTES = 16 << 20
_CONNECTIONS = 16
_BODY_ATTEMPTS = 3

TRANSFER = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=8)
"""How files are moved."""


def code_of(refusal: Any) -> str:
    """S3's word for what was refused, or the HTTP status of an answer without a body."""
    return str(refusal.response["Error"]["Code"])


def as_prefix(folder: str) -> str:
    """What the names of all objects in a folder of a bucket begin with; "" for the whole bucket."""
    path = folder.strip("/")
    return f"{path}/" if path else ""


def client_for(
    profile: str | None,
    endpoint_url: str | None,
    region: str | None,
    addressing_style: str,
    *,
    attempts: int,
    read_timeout_s: float,
) -> Any:
    """boto3's client; credentials come from where AWS's own tools look for them."""
    return boto3.session.Session(profile_name=profile).client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=_CONNECTIONS,
            s3={"addressing_style": addressing_style},
            # Many S3 servers do not know the newer checksums, and manifests carry sha256.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def read_body(
    client: Any, asked: dict[str, str], check: Callable[[dict[str, Any]], None] = lambda answer: None
) -> bytes:
    """What get_object answers, asked for again where it breaks off, which boto3 leaves to us; `check` sees it first."""
    attempts_left = _BODY_ATTEMPTS
    while True:
        attempts_left -= 1
        answer = client.get_object(**asked)
        with closing(answer["Body"]) as body:
            check(answer)
            try:
                return bytes(body.read())
            except _PASSING_ERRORS:
                if not attempts_left:
                    raise


@contextmanager
def explained(name: str, who: str = "object store") -> Iterator[None]:
    """Say what failed by its code alone: servers' own texts repeat key IDs and what was signed."""
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ResponseParserError) as error:
        cause = error.__context__ if isinstance(error, Boto3Error) else error
        if not isinstance(cause, ClientError):
            kind = StoreUnavailable if isinstance(cause, _PASSING_ERRORS) else StoreError
            raise kind(f"{who}: {type(cause or error).__name__}, at {name!r}") from None
        code = code_of(cause)
        if code in MISSING_CODES:
            raise ObjectMissing(name) from None
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        passing = status >= 500 or status == 429 or code in _PASSING_CODES
        raise (StoreUnavailable if passing else StoreError)(f"{who}: {code}, at {name!r}") from None
