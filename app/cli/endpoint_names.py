"""An endpoint as a person names it."""

import re
from typing import Annotated

import typer

from app.cli.api import Api
from app.local import StartFailed

WhichEndpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="An endpoint's ID or name.")]

_ID = re.compile(r"ep-\d{14}-[a-z0-9]+")


def endpoint_path(api: Api, which: str, *, deleted: bool = False) -> str:
    """Where the API has the endpoint that is meant; `deleted`: one that can be restored. Raises StartFailed.

    While units drain there may be a new one of the same name: of those two the new one is meant, or with `deleted`
    the old one.
    """
    if _ID.fullmatch(which):
        return f"endpoints/{which}"
    found = api.list("endpoints", name=which)
    leaving = [one for one in found if one["state"] == "deleting"]
    if deleted:
        found = leaving + api.list("endpoints", name=which, deleted="true")
    elif len(leaving) < len(found):
        found = [one for one in found if one not in leaving]
    if len(found) == 1:
        return f"endpoints/{found[0]['id']}"
    if found:
        raise StartFailed(f"several were named {which}, say which by its ID: {', '.join(one['id'] for one in found)}")
    raise StartFailed(f"there is no {'deleted ' if deleted else ''}endpoint named {which}")
