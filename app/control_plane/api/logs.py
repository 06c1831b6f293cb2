"""/platform/v1/endpoints/{endpoint_id}/logs."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from app.control_plane.api.access import Developer, PlatformDep
from app.control_plane.api.filters import WindowDep
from app.control_plane.api.log_stream import LIST_OR_TEXT, LogStream, Search, attached, followed, refuse_beside_follow
from app.control_plane.api.pages import unknown_token
from app.core.log_lines import LogLine, Place, Wanted, as_text

LINES_PER_CHUNK = 500

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])


@router.get("/{endpoint_id}/logs", response_model=None, responses=LIST_OR_TEXT)
def find(
    endpoint_id: str,
    caller: Developer,
    platform: PlatformDep,
    window: WindowDep,
    search: Search = "",
    page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[str | None, Query(max_length=128)] = None,
    download: bool = False,
    follow: bool = False,
) -> Response:
    """What an endpoint's units logged, also one's that can be restored; oldest first, or newest with `order=desc`.

    `search` finds lines that contain it, whatever the case. A page may be short, or empty, while there is a
    `next_page_token`: only so much is searched at a time. `download=true` gives everything as one text.
    `follow=true` gives the last lines as text, and then whatever comes, for an hour; now and then an empty line shows
    that the connection lives.
    """
    platform.endpoints.get(caller.workspace, endpoint_id, deleted=True)
    wanted = Wanted(endpoint_id, search, **window.arguments)
    if follow:
        refuse_beside_follow(download=download, order=wanted.newest_first, until=wanted.until, page_token=page_token)
        return followed(platform.logs.follower(wanted), caller, platform)
    if download:
        place = platform.log_places.taken(caller.workspace)
        return LogStream(_as_chunks(platform.logs.all(wanted)), place, attached(endpoint_id))
    after = Place.parse(page_token) if page_token is not None else None
    if page_token is not None and after is None:
        raise unknown_token()
    lines, following = platform.logs.find(wanted, page_size, after)
    token = str(following) if following else None
    return JSONResponse({"object": "list", "data": [_show(line) for line in lines], "next_page_token": token})


def _show(line: LogLine) -> dict[str, Any]:
    place = line.place
    return {
        "object": "log_line",
        "id": str(place),
        "created_at": place.written_at,
        "unit": place.unit,
        "message": line.text,
    }


def _as_chunks(lines: Iterable[LogLine]) -> Iterator[str]:
    rest = iter(lines)
    while some := list(islice(rest, LINES_PER_CHUNK)):
        yield "".join(f"{as_text(line)}\n" for line in some)
