"""`modelunit usage`: what requests have taken."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.api import Api, given
from app.cli.endpoint_names import endpoint_path
from app.cli.terminal import AsJson, show
from app.cli.times import Since, Until

_SUMS = ("requests", "partial_requests", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens")
_COLUMNS = {"endpoint": ("endpoint", "endpoint_name"), "key": ("key", "key_description")}


class By(StrEnum):
    """What usage can be added up by, in the order in which it is shown."""

    day = "day"
    hour = "hour"
    workspace = "workspace"
    endpoint = "endpoint"
    key = "key"


def usage_command(
    by: Annotated[list[By], typer.Option(help="What is added up; may be given several times.")] = [By.endpoint],  # noqa: B006
    endpoint: Annotated[str | None, typer.Option(help="Only of one, by its ID or name.")] = None,
    key: Annotated[str | None, typer.Option(help="Only of one key, by its ID.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Another one or `all`, for the platform's admins.")] = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Requests and tokens, in whole hours; those of which an engine did not live to tell all are counted as partial."""
    api = Api()
    endpoint_id = endpoint and endpoint_path(api, endpoint).rpartition("/")[2]
    filters: dict[str, Any] = given(
        group_by=[name.value for name in by],
        endpoint=endpoint_id,
        key=key,
        workspace=workspace,
        since=since,
        until=until,
    )
    rows = api.list("usage", **filters)
    totals = api.call("GET", "usage", params=filters | {"page_size": 1})["totals"]
    if as_json:
        show({"data": rows, "totals": totals}, True)
        return
    columns = [column for name in By if name in by for column in _COLUMNS.get(name, (name.value,))]
    show([*rows, {columns[0]: "all", **totals}], False, *columns, *_SUMS)
