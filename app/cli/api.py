"""The platform's API, as commands call it, and how it is told what a person typed."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import typer

from app.cli.terminal import errors, settings_or_exit
from app.local import StartFailed
from app.local.running import Running, admin_key, running

Rows = list[dict[str, Any]]

TIMEOUT_S = 600
PAGE = 1000
"""The largest page that the API gives."""


class Refused(StartFailed):
    """The platform answered with an error; the message is its own."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Reached(NamedTuple):
    """A platform, and the key that it is called with."""

    base_url: str
    key: str
    here: Running | None
    """The platform of this machine; None for one that is elsewhere."""


def reach(environ: Mapping[str, str] = os.environ) -> Reached:
    """The platform at MODELUNIT_BASE_URL, else the one here; with MODELUNIT_API_KEY, and here else as its admin.

    Raises StartFailed.
    """
    key = environ.get("MODELUNIT_API_KEY")
    if url := environ.get("MODELUNIT_BASE_URL"):
        if key:
            return Reached(url, key, None)
        raise StartFailed("MODELUNIT_BASE_URL names a platform, but MODELUNIT_API_KEY has no key for it")
    settings = settings_or_exit()
    found = running(settings)
    if found is None:
        raise StartFailed(
            "no platform runs here; start one with 'modelunit up', or name one elsewhere by MODELUNIT_BASE_URL and "
            "MODELUNIT_API_KEY"
        )
    return Reached(found.base_url, key or admin_key(settings, found), found)


class Api:
    """The platform's API. Every failure ends the command with the API's own words."""

    def __init__(self) -> None:
        self.platform = reach()
        url, headers = self.platform.base_url, {"authorization": f"Bearer {self.platform.key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the answer, None where there is none; `path` is relative to /platform/v1."""
        return self._checked(self._client.request(method, f"/platform/v1/{path}", **request))

    def delete(self, path: str, confirm: str, **params: str) -> Any:
        """Like `call`, with what the person typed to confirm it."""
        return self.call("DELETE", path, params={"confirm": confirm, **params})

    def list(self, path: str, limit: int | None = None, **filters: Any) -> Rows:
        """All pages of a list, or its first `limit` rows; filters that are None are left out."""
        params = given(**filters)
        if limit is not None:
            params["page_size"] = min(limit, PAGE)
        rows: Rows = []
        while True:
            page = self.call("GET", path, params=params)
            try:
                rows += page["data"]
                token = page["next_page_token"]
            except (KeyError, TypeError):
                raise self._not_a_platform() from None
            if token is None or (limit is not None and len(rows) >= limit):
                return rows[:limit]
            params["page_token"] = token

    def newest(self, path: str, limit: int, **filters: Any) -> Rows:
        """The last rows of a list that can be turned round, oldest first."""
        return self.list(path, limit, order="desc", **filters)[::-1]

    def lines(self, path: str, **request: Any) -> Iterator[str]:
        """The lines of an answer in plain text, as they come."""
        return self._lines("GET", f"/platform/v1/{path}", "text/plain", **request)

    def chat(self, body: Mapping[str, Any]) -> Any:
        """A whole answer in OpenAI's format."""
        return self._checked(self._client.post("/v1/chat/completions", json=body))

    def chat_events(self, body: Mapping[str, Any]) -> Iterator[str]:
        """The lines of an answer as server-sent events, as they come."""
        return self._lines("POST", "/v1/chat/completions", "text/event-stream", json={**body, "stream": True})

    def _lines(self, method: str, url: str, content_type: str, **request: Any) -> Iterator[str]:
        with self._client.stream(method, url, **request) as answer:
            if answer.status_code >= 400 or not answer.headers.get("content-type", "").startswith(content_type):
                answer.read()
                self._checked(answer)
                raise self._not_a_platform()
            yield from answer.iter_lines()

    def _checked(self, answer: httpx.Response) -> Any:
        if answer.status_code == 204:
            return None
        try:
            body = answer.json()
        except ValueError:
            if answer.status_code < 500:
                raise self._not_a_platform() from None
            body = None  # of something in between
        if answer.status_code >= 400:
            told = body.get("error", {}) if isinstance(body, dict) else {}
            raise Refused(str(told.get("message") or f"the platform answered {answer.status_code}"), answer.status_code)
        return body

    def _not_a_platform(self) -> StartFailed:
        return StartFailed(f"what answers at {self._client.base_url} is not a platform")


def given(**fields: Any) -> dict[str, Any]:
    """Without those that are None, which nobody named."""
    return {name: value for name, value in fields.items() if value is not None}


def segment(typed: str) -> str:
    """One part of a path, whatever a person typed: it must not lead elsewhere."""
    if typed in ("", ".", ".."):
        raise typer.BadParameter(f"{typed!r} is neither an ID nor a name")
    return quote(typed, safe="")


def source_uri(typed: str) -> str:
    """The address of weights; without a scheme it is a folder of this machine."""
    return typed if "://" in typed else f"file://{Path(typed).resolve()}"


def fields_of(spec: Path | None) -> dict[str, Any]:
    """What a JSON file says of a job; nothing where none is named. What cannot be read is wrong usage."""
    if spec is None:
        return {}
    try:
        fields = json.loads(spec.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        errors.print(f"{spec.name}: {error}")
        raise typer.Exit(2) from None
    if not isinstance(fields, dict):
        raise typer.BadParameter("it holds no JSON object", param_hint="--spec")
    return fields
