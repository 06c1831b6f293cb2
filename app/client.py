"""A client of the platform for Python programs: from a folder of weights to answers.

    from app.client import CustomModel

    endpoint = CustomModel("s3://bucket/my-qwen").deploy()
    print(endpoint.chat("Hello"))
    endpoint.delete()

The platform is at MODELUNIT_BASE_URL (http://127.0.0.1:8000 unless set), the key in MODELUNIT_API_KEY.
"""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from app.core.patience import Outcome, Silence

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
DEPLOY_TIMEOUT_S = 3600.0
POLL_S = 1.0
_LOCATION = "/platform/v1beta1/projects/default/locations/global"
_TIMEOUT = httpx.Timeout(600, connect=10)


class ClientError(Exception):
    """The platform refused or could not be reached; the message is the platform's own where there is one."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None):
        super().__init__(message)
        self.status = status
        """HTTP status, None when no answer came."""
        self.code = code

    @property
    def passing(self) -> bool:
        """The control plane may have been asked in vain while another was about to take over."""
        return self.status in (None, 502, 503, 504)


class DeployFailed(ClientError):
    """The endpoint cannot serve, or did not within the time; it is there still, and is named in the message."""


class Endpoint:
    """One endpoint of the platform."""

    def __init__(self, http: httpx.Client, endpoint_id: str):
        self._http = http
        self.id = endpoint_id

    def __repr__(self) -> str:
        return f"Endpoint({self.id!r})"

    def refresh(self) -> dict[str, Any]:
        """The endpoint as the control API shows it. Raises ClientError."""
        return _call(self._http, "GET", f"/platform/v1/endpoints/{self.id}")

    @property
    def state(self) -> str:
        """Such as "healthy", asked anew. Raises ClientError."""
        return str(self.refresh()["state"])

    def wait(
        self,
        timeout_s: float | None = DEPLOY_TIMEOUT_S,
        on_change: Callable[[str, str], None] | None = None,
        poll_s: float = POLL_S,
    ) -> "Endpoint":
        """Return once it can be called; `on_change` hears state and reason whenever they change.

        A control plane that is being replaced is waited for, and bad news counts once it has lasted for some seconds.
        Raises DeployFailed with the reason when it cannot serve, or after `timeout_s` (None: never), and ClientError.
        """
        silence, outcome, started = Silence(), Outcome(), time.monotonic()
        told = ("not heard of", "")
        while True:
            try:
                found = self.refresh()
            except ClientError as error:
                if not error.passing or silence.too_long(time.monotonic(), answered=False):
                    raise
            else:
                silence.too_long(time.monotonic(), answered=True)
                news = (str(found["state"]), str(found["reason"]))
                if on_change is not None and news != told:
                    on_change(*news)
                told = news
                serves = outcome.serves(found, time.monotonic())
                if serves:
                    return self
                if serves is False:
                    raise DeployFailed(f"endpoint {self.id} is {told[0]}: {told[1] or 'no reason is known'}")
            if timeout_s is not None and time.monotonic() - started >= timeout_s:
                raise DeployFailed(f"endpoint {self.id} is still {told[0]} after {timeout_s:.0f} s: {told[1]}")
            time.sleep(poll_s)

    def chat(self, messages: str | Sequence[dict[str, Any]], **options: Any) -> str:
        """The text of an answer; `options` are those of OpenAI's chat API, such as max_tokens. Raises ClientError."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        body = {**options, "model": self.id, "messages": turns, "stream": False}
        answer = _call(self._http, "POST", "/v1/chat/completions", json=body)
        return str(answer["choices"][0]["message"]["content"] or "")

    def delete(self) -> None:
        """Stop and remove it; it can be restored for a while. Raises ClientError."""
        _call(self._http, "DELETE", f"/platform/v1/endpoints/{self.id}", params={"confirm": "DELETE"})


@dataclass(frozen=True)
class CustomModel:
    """Weights of your own: a folder in the format of Hugging Face."""

    uri: str
    """s3://BUCKET/FOLDER or file:///FOLDER, as the platform's machines see it."""
    base_model: str | None = None
    """A base model of the catalogue; None: config.json tells."""
    base_url: str | None = None
    api_key: str | None = None

    def deploy(
        self,
        machine_type: str | None = None,
        accelerator_type: str | None = None,
        accelerator_count: int | None = None,
        min_units: int = 1,
        max_units: int = 1,
        name: str | None = None,
        wait: bool = True,
        on_change: Callable[[str, str], None] | None = None,
        timeout_s: float | None = DEPLOY_TIMEOUT_S,
        idempotency_key: str | None = None,
    ) -> Endpoint:
        """An endpoint that serves these weights.

        The three machine fields go together: without them the platform chooses. With `wait` it returns when the
        endpoint can be called, as Endpoint.wait does. Where an answer is lost the platform is asked again, and makes
        one endpoint all the same; so it does for a program that names an `idempotency_key` and calls this again.
        Raises ValueError for some of the three, ClientError, DeployFailed.
        """
        given = (machine_type, accelerator_type, accelerator_count)
        if any(field is None for field in given) and any(field is not None for field in given):
            raise ValueError("give machine_type, accelerator_type and accelerator_count, or none of them")
        resources: dict[str, Any] = {"minReplicaCount": min_units, "maxReplicaCount": max_units}
        if machine_type is not None:
            resources["machineSpec"] = {
                "machineType": machine_type, "acceleratorType": accelerator_type, "acceleratorCount": accelerator_count
            }  # fmt: skip
        model = {"gcsUri": self.uri} | ({"baseModel": self.base_model} if self.base_model else {})
        body: dict[str, Any] = {"customModel": model, "deployConfig": {"dedicatedResources": resources}}
        if name is not None:
            body["endpointConfig"] = {"endpointDisplayName": name}
        http = _connect(self.base_url, self.api_key)
        operation = _once(http, f"{_LOCATION}:deploy", body, idempotency_key or uuid.uuid4().hex)
        endpoint = Endpoint(http, str(operation["metadata"]["endpoint"]).rpartition("/")[2])
        return endpoint.wait(timeout_s, on_change) if wait else endpoint


def _connect(base_url: str | None, api_key: str | None) -> httpx.Client:
    key = api_key or os.environ.get("MODELUNIT_API_KEY")
    if not key:
        raise ClientError("there is no key: pass api_key or set MODELUNIT_API_KEY")
    url = base_url or os.environ.get("MODELUNIT_BASE_URL") or DEFAULT_BASE_URL
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=_TIMEOUT, trust_env=False)


def _once(http: httpx.Client, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    """What a POST makes, once: it is sent again while nobody knows whether it has arrived."""
    silence, sent = Silence(), False
    while True:
        try:
            return _call(http, "POST", path, json=body, headers={"Idempotency-Key": key})
        except ClientError as error:
            nobody_there = isinstance(error.__cause__, httpx.ConnectError) and not sent
            if nobody_there or not error.passing or silence.too_long(time.monotonic(), answered=False):
                raise
        sent = True
        time.sleep(POLL_S)


def _call(http: httpx.Client, method: str, path: str, **request: Any) -> dict[str, Any]:
    try:
        answer = http.request(method, path, **request)
    except httpx.HTTPError as error:
        raise ClientError(f"the platform at {http.base_url} does not answer: {type(error).__name__}") from error
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and isinstance(body, dict):
        return body
    told = body.get("error") if isinstance(body, dict) else None
    told = told if isinstance(told, dict) else {}
    raise ClientError(
        str(told.get("message") or f"the platform answered {answer.status_code}"), answer.status_code, told.get("code")
    )
