"""How much a body may consist of, seen before it is parsed: to check millions of tiny values holds up everybody."""

from app.core.errors import BadRequest

MAX_QUOTES = 120_000
"""Of texts and names; those inside of texts are escaped and do not count."""
MAX_BRACKETS = 250_000
"""Also those inside of texts: of eight megabytes of source code a few in a hundred characters are."""


def require_modest(body: bytes) -> None:
    """Raises BadRequest for a body of more texts, objects and lists than any chat has. Takes some milliseconds."""
    if body.count(b'"') - body.count(b'\\"') > MAX_QUOTES or body.count(b"{") + body.count(b"[") > MAX_BRACKETS:
        raise BadRequest(
            f"The body has too many values: at most about {MAX_QUOTES // 2:,} texts and names, and {MAX_BRACKETS:,} "
            "objects and lists.",
            code="too_many_values",
        )
