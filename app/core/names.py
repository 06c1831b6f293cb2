"""IDs and the rules for names. IDs are ASCII; names may be Chinese (S3, tables 5-1 and 8-1)."""

import re
import secrets
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_LETTER = "A-Za-z\u4e00-\u9fff"
_MODEL_NAME = re.compile(rf"[{_LETTER}][{_LETTER}0-9_.-]{{0,63}}")
_SERVICE_NAME = re.compile(rf"[{_LETTER}][{_LETTER}0-9_-]{{0,63}}")
_ENDPOINT_ID = re.compile(r"ep-\d{14}-.*", re.ASCII)


def new_id(prefix: str, now: datetime, random_chars: int = 5) -> str:
    """`ep-20260131093000-x1y2z`: prefix, UTC time to the second, five random characters (S2 shows `ep-2025****-**`).

    What is made many times a second needs more of them.
    """
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(random_chars))
    return f"{prefix}-{now:%Y%m%d%H%M%S}-{suffix}"


def _check_model_name(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError("1 to 64 Chinese or ASCII letters, digits, '_', '-' or '.', starting with a letter")
    return name


def _check_service_name(name: str) -> str:
    if not _SERVICE_NAME.fullmatch(name):
        raise ValueError("1 to 64 Chinese or ASCII letters, digits, '_' or '-', starting with a letter")
    if _ENDPOINT_ID.fullmatch(name):
        raise ValueError("it looks like an endpoint's ID: whoever names one could mean either")
    return name


ModelName = Annotated[str, AfterValidator(_check_model_name)]
ServiceName = Annotated[str, AfterValidator(_check_service_name)]
