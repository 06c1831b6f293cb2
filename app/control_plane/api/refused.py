"""How the API's description shows what a refused request gets; app/core/errors.py makes it."""

from typing import Any

from pydantic import BaseModel


class ErrorShown(BaseModel):
    """What is wrong; `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every answer from 400 on."""

    error: ErrorShown


REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request cannot be done like this"},
    "5XX": {"model": ErrorBody, "description": "It cannot be done now; see Retry-After"},
}
