"""HOME/serve.json: the platform that runs on this machine, and how to reach it."""

import contextlib
import json
import shlex
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from app.local import StartFailed
from app.local.files import write_private
from app.settings import Settings

_MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


class Running(BaseModel):
    """How to reach a running platform."""

    model_config = ConfigDict(frozen=True)

    base_url: str
    endpoint_id: str | None
    admin_key_file: str
    dashboard_url: str
    ray_address: str
    ray_token_file: str
    pids: list[int]
    run_id: str
    served: bool = False
    """Its router has answered once: what lives of it is in use, and no start that was cut off."""

    @property
    def ray_token(self) -> str:
        """What its dashboard asks for. Raises OSError."""
        return Path(self.ray_token_file).read_text()

    def answers(self) -> bool:
        """Whether its router is well."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.base_url}/healthz", timeout=5, trust_env=False).status_code == 200
        return False


def running(settings: Settings) -> Running | None:
    """The platform of this HOME if it runs and answers."""
    found = recorded(settings)
    return found if found and found.answers() else None


def recorded(settings: Settings) -> Running | None:
    """The platform that was started last for this HOME, whether it lives or not."""
    try:
        return Running.model_validate_json(_file(settings).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def record(settings: Settings, found: Running) -> None:
    """Write it down for whoever calls it."""
    write_private(_file(settings), found.model_dump_json(indent=2))


def forget(settings: Settings) -> None:
    """It runs no more."""
    _file(settings).unlink(missing_ok=True)


def admin_key(settings: Settings, found: Running) -> str:
    """The admin's key. Raises StartFailed when there is none."""
    try:
        return settings.admin_key or Path(found.admin_key_file).read_text().strip()
    except OSError as error:
        reason = f"{found.admin_key_file}: {error.strerror}"
        raise StartFailed(f"the admin key cannot be read ({reason}); MODELUNIT_ADMIN_KEY may hold it") from None


def key_place(settings: Settings, found: Running) -> str:
    """Where a person finds the admin key."""
    return f"in {found.admin_key_file}" if settings.admin_key is None else "the value of MODELUNIT_ADMIN_KEY"


def first_chat(model: str) -> dict[str, Any]:
    """What a start ends with: a body for chat/completions whose answer is short."""
    return {"model": model, "messages": _MESSAGES, "max_tokens": 64, "temperature": 0}


def curl_line(settings: Settings, found: Running) -> str:
    """A command that a person can paste."""
    body = json.dumps({"model": found.endpoint_id, "messages": _MESSAGES})
    key = f"$(cat {shlex.quote(found.admin_key_file)})" if settings.admin_key is None else "$MODELUNIT_ADMIN_KEY"
    return (
        f'curl {found.base_url}/v1/chat/completions -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


def _file(settings: Settings) -> Path:
    return settings.home / "serve.json"
