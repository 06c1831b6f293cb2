"""`modelunit chat`: talk to an endpoint."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from app.cli.api import Api, given
from app.cli.terminal import AsJson, errors, printable, show
from app.local import StartFailed


def chat_command(
    endpoint: Annotated[str, typer.Argument(help="An endpoint's ID or name.")],
    text: Annotated[
        str | None, typer.Argument(help="What to say; left out: what comes by a pipe, or a conversation.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is to keep in mind.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0)] = None,
    as_json: AsJson = False,
) -> None:
    """Chat with an endpoint; the answer appears as it is made."""
    body = given(model=endpoint, max_tokens=max_tokens, temperature=temperature)
    messages = [{"role": "system", "content": system}] if system else []
    talks = text is None and sys.stdin.isatty()
    if talks and as_json:
        raise typer.BadParameter("--json needs a text")
    api = Api()
    if talks:
        _talk(api, body, messages)
        return
    said = sys.stdin.read() if text is None else text
    messages.append({"role": "user", "content": said})
    if as_json:
        show(api.chat({**body, "messages": messages}), True)
    else:
        _answer(api, {**body, "messages": messages})


def _talk(api: Api, body: dict[str, Any], messages: list[dict[str, str]]) -> None:
    """Until the person has nothing more to say."""
    errors.print("Ctrl-D ends the conversation")
    while True:
        try:
            said = input("> ")
        except EOFError:
            typer.echo()
            return
        if said.strip():
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": _answer(api, {**body, "messages": messages})})


def _answer(api: Api, body: dict[str, Any]) -> str:
    """Print the answer as it comes; all of it in the end."""
    parts = []
    try:
        for part in _parts(api.chat_events(body)):
            typer.echo(printable(part), nl=False)
            parts.append(part)
    finally:
        if parts:
            typer.echo()
    return "".join(parts)


def _parts(lines: Iterable[str]) -> Iterator[str]:
    """The text in a stream of chat events. Raises StartFailed when it breaks off."""
    for line in lines:
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            return
        if data:
            event = json.loads(data)
            if "error" in event:
                raise StartFailed(f"the answer broke off: {event['error']['message']}")
            yield from (choice["delta"].get("content") or "" for choice in event["choices"])
    raise StartFailed("the answer broke off")
