"""What comes of a wish for an endpoint: the end that `deploy`, `endpoints create` and others have in common."""

from typing import Annotated, Any

import typer

from app.cli.api import Api
from app.cli.terminal import show
from app.cli.times import seconds
from app.cli.waiting import wait_for_endpoint

Wait = Annotated[bool, typer.Option(help="Until it serves, and tell what it waits for.")]
Timeout = Annotated[
    int | None, typer.Option(parser=seconds, metavar="TIME", help="Wait no longer than this, such as 30m.")
]


def show_outcome(
    api: Api, endpoint: dict[str, Any], wait: bool, timeout_s: int | None, as_json: bool, *, awake: bool = False
) -> None:
    """Print the endpoint, once it serves if that is to be waited for; one that does not serve then ends with 1.

    `awake`: see wait_for_endpoint.
    """
    serves = True
    if wait:
        endpoint, serves = wait_for_endpoint(api, endpoint["id"], timeout_s, awake=awake)
    show(endpoint, as_json)
    if not serves:
        raise typer.Exit(1)
