"""Short texts that people write: one line, which every database, terminal and log can hold."""

from typing import Annotated

from pydantic import AfterValidator


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be one line without control characters")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
