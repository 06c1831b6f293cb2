"""The serve config of the platform on this machine: read, fitted to its model and ports, and deployed."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from app.local import Say, StartFailed
from app.local.files import write_private
from app.local.running import Running
from app.settings import Settings
from app.weights.prepare import DEMO_NAME

LOCAL = Path(__file__).parent.parent.parent / "serve_configs" / "local.yaml"
TIMEOUT_S = 180

Config = dict[str, Any]


def read(settings: Settings, given: Path | None) -> Config:
    """The config of a start: the given one, else what was deployed last, else local.yaml. Raises StartFailed."""
    kept = deployed_file(settings)
    path = given or (kept if kept.exists() else LOCAL)
    advice = f"; mend it, or replace it: modelunit up --config {LOCAL}" if path == kept else ""
    try:
        config: Config = yaml.safe_load(path.read_text())
        first_endpoint(config)
        if not isinstance(config["http_options"], dict):
            raise TypeError
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, IndexError, TypeError, StopIteration):
        raise StartFailed(
            f"{path} is not a serve config with http_options whose control_plane declares an endpoint{advice}"
        ) from None
    return config


def first_endpoint(config: Config) -> dict[str, Any]:
    """The endpoint that `up` waits for."""
    endpoint: dict[str, Any] = _application(config, "control_plane")["args"]["endpoints"][0]
    return endpoint


def prepare_model(settings: Settings, config: Config, folder: Path | None, say: Say) -> None:
    """Have the first endpoint's model in the object store: the given folder, or the demo model where it is named."""
    first = first_endpoint(config)
    if folder is None and first["model"] != DEMO_NAME:
        return
    command = [sys.executable, "-m", "app.weights.prepare", *([str(folder.resolve())] if folder else [])]
    process = subprocess.Popen(
        command, env=settings.to_environ(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    try:
        for line in process.stdout:
            kind, _, text = line.strip().partition(" ")
            if kind == "model":
                first["model"] = text
            elif kind == "step":
                say(text)
        if process.wait() != 0:
            raise StartFailed("the model could not be prepared; the lines above say why")
        if folder:
            _fit_length(first, folder)
    finally:
        process.kill()
        process.wait()


def _fit_length(endpoint: dict[str, Any], folder: Path) -> None:
    """Never ask for more tokens than the model has positions; what is wrong with its config shows later, by name."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        positions = json.loads((folder / "config.json").read_text()).get("max_position_embeddings")
        if isinstance(positions, int) and "max_model_len" in endpoint:
            endpoint["max_model_len"] = min(endpoint["max_model_len"], positions)


def deploy(settings: Settings, dashboard_url: str, token: str, config: Config, proxy_port: int | None = None) -> None:
    """What `serve deploy` does, by the same REST call; the first one says where Serve's own proxy listens.

    The config is kept in HOME/serve_config.yaml once Serve has taken it. Raises StartFailed.
    """
    if proxy_port is not None:
        config["http_options"]["port"] = proxy_port
        # Serve does not tell it back, so a config that was read from Serve lacks it; logs never hold request paths.
        config.setdefault("logging_config", {"enable_access_log": False})
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            answer = httpx.put(_url(dashboard_url), json=config, headers=_bearer(token), timeout=60, trust_env=False)
            if answer.status_code == 200:
                write_private(deployed_file(settings), yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
                return
            problem = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code < 500:
                raise StartFailed(f"Serve refused the config: {problem}")
        except httpx.TransportError as error:  # the dashboard is still starting
            problem = type(error).__name__
        if time.monotonic() > deadline:
            raise StartFailed(f"Serve did not take the config within {TIMEOUT_S} s: {problem}")
        time.sleep(0.2)


def deployed_file(settings: Settings) -> Path:
    """The config as it was deployed last."""
    return settings.home / "serve_config.yaml"


def deployed(found: Running) -> Config:
    """The config that Serve runs now: others may have deployed since `up` did. Raises StartFailed."""
    try:
        told = details(found.dashboard_url, found.ray_token, timeout_s=60)
    except (httpx.HTTPError, ValueError) as error:
        raise StartFailed(f"Serve does not tell what it runs ({type(error).__name__})") from None
    try:
        apps = [app["deployed_app_config"] for app in told["applications"].values() if app.get("deployed_app_config")]
        config = {name: told[name] for name in ("proxy_location", "http_options")} | {"applications": apps}
        first_endpoint(config)
    except (KeyError, IndexError, StopIteration, TypeError):
        raise StartFailed("the config that was deployed last declares no endpoint to chat with") from None
    return config


def problems(dashboard_url: str, token: str) -> str:
    """What Serve says of its applications, for an error message."""
    with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
        apps = details(dashboard_url, token)["applications"]
        return "; ".join(f"{name}: {app['status']} {app['message'][-300:]}" for name, app in apps.items())
    return ""


def details(dashboard_url: str, token: str, timeout_s: float = 10) -> dict[str, Any]:
    """What Serve says of itself. Raises httpx.HTTPError, ValueError."""
    answer = httpx.get(_url(dashboard_url), headers=_bearer(token), timeout=timeout_s, trust_env=False)
    said: dict[str, Any] = answer.raise_for_status().json()
    return said


def _application(config: Config, name: str) -> dict[str, Any]:
    return next(app for app in config["applications"] if app["name"] == name)


def _url(dashboard_url: str) -> str:
    return f"{dashboard_url}/api/serve/applications/"


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
