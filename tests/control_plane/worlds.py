"""A control plane with something of every kind in it, and what must hold of every answer of its API."""

import json
import re
from typing import Any

from app.control_plane.deployment import asgi
from app.control_plane.platform import Platform
from app.control_plane.services.keys import ADMIN_KEY_ID
from app.core.errors import NotFound
from app.core.records import DEFAULT_WORKSPACE, ApiKey, Endpoint, Job, Member, Model, Record, Workspace
from tests.control_plane.platforms import admin_key, publish_model, spec

MODEL = "m-1"
MESSAGE_LIMIT = 1200
INSIDE = re.compile(r'Traceback|File "|site-packages|sqlalchemy|psycopg|sqlite3|pydantic|\.py\b', re.IGNORECASE)
"""Nothing that a caller could need: our own insides."""


class World:
    """A platform with something of every kind in it, so that requests meet more than 404."""

    def __init__(self, platform: Platform):
        self.platform = platform
        self.app = asgi(platform)
        self.headers = {"authorization": f"Bearer {admin_key(platform.settings)}"}
        for loop in platform.loops:
            loop.stop()  # steps are taken by hand: the same requests meet the same things

    def app_description(self) -> dict[str, Any]:
        """The API's description of itself."""
        return self.app.openapi()

    def renew(self) -> None:
        """Let the control plane do what requests wished for, and make again what they took away."""
        services = self.platform
        for step in (services.reconciler, services.job_runner, services.stop_rules, services.figures):
            step.step()
        try:
            services.models.get(DEFAULT_WORKSPACE, MODEL)
        except NotFound:
            publish_model(services.settings)
            services.models.adopt()
        if not services.endpoints.find(DEFAULT_WORKSPACE):
            services.endpoints.create(DEFAULT_WORKSPACE, spec("one"))
            services.reconciler.step()
        if not services.registry.find(Job):
            services.models.revalidate(DEFAULT_WORKSPACE, MODEL, "again")
        if not services.members.find(DEFAULT_WORKSPACE):
            services.members.add(DEFAULT_WORKSPACE, "somebody", "developer", None)
        if len(services.workspaces.find()) < 2:
            services.workspaces.create("another")
        if len(services.keys.find(DEFAULT_WORKSPACE)) < 2:
            services.keys.issue(DEFAULT_WORKSPACE, "inference", "", None, None, None)

    def belongings(self) -> dict[str, Record]:
        """What the first workspace has, by ID."""
        find = self.platform.registry.find
        kinds: tuple[type[Record], ...] = (Endpoint, Model, Job, Member, ApiKey)
        return {record.id: record for kind in kinds for record in find(kind, workspace=DEFAULT_WORKSPACE)}

    def known(self) -> dict[str, list[Any]]:
        """Values that mean something, by the name of the parameter or field."""
        find = self.platform.registry.find
        endpoints, models, jobs, members, workspaces = (
            [record.id for record in find(kind)][-9:] for kind in (Endpoint, Model, Job, Member, Workspace)
        )
        keys = [key.id for key in find(ApiKey) if key.id != ADMIN_KEY_ID][-9:]
        folder = self.platform.settings.home / "source"
        moments = ["2026-01-31T09:30:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"]
        return {
            "endpoint_id": endpoints, "model_id": [*models, MODEL], "job_id": jobs, "member_id": [*members, "somebody"],
            "key_id": keys, "workspace_id": workspaces, "operation": [f"deploy-{one}" for one in endpoints],
            "confirm": ["DELETE"], "model": [MODEL, "Model-1"], "name": ["one", "two", "cpu-small"],
            "base_model": [self.platform.catalog.entries[0].base_model], "precision": ["BF16", "W4A8"],
            "machine_type": ["cpu-small", "gpu-1"], "machineType": ["cpu-small"], "page_token": [*endpoints, *keys],
            "uri": [f"file://{folder}", "file:///nowhere"], "gcsUri": [f"file://{folder}"], "endpoints": [endpoints],
            "member": [*members, "somebody"], "subject": endpoints, "since": moments, "until": moments,
            "expires_at": moments, "actor": keys, "auto_stop_s": [60], "allowed_networks": [["10.0.0.0/8"]],
        }  # fmt: skip


def complaints(status: int, headers: dict[str, str], content: bytes) -> str:
    """What is wrong with an answer of the control API; nothing: all is well."""
    text = content.decode()
    if status in (422, 500):
        return f"status {status}"
    if not headers.get("x-request-id"):
        return "no x-request-id"
    if status < 400:
        return ""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return "not an error in our shape"
    if set(error) != {"message", "type", "param", "code"} or set(json.loads(text)) != {"error"}:
        return "other fields than an error has"
    if not all(isinstance(error[name], str) and error[name] for name in ("message", "type", "code")):
        return "an error that does not say what is wrong"
    if INSIDE.search(text) or len(error["message"]) > MESSAGE_LIMIT:
        return "an error that says too much"
    if status in (429, 503) and not headers.get("retry-after", "").isdigit():
        return "no Retry-After"
    return ""
