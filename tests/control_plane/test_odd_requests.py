"""Texts and bodies that break servers, sent to everything that the control API's description names."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.control_plane.platform import Platform
from tests.control_plane.platforms import ONE_DATABASE
from tests.control_plane.worlds import World, complaints

pytestmark = pytest.mark.timeout(400)

BODIES = [
    b"", b"{", b"null", b"[]", b'"x"', b"0", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{}" * 2, b"[" * 100_000,
    b'{"name":' * 50_000, b'{"name": 1e999}', b'{"name": NaN}', b'{"name": ' + b"9" * 5000 + b"}",
    b'{"name": "\\ud800"}', b'{"\\ud800": 1}', b'{"\\u0000": 1}', b'{"name": "a", "name": "b"}',
    json.dumps({f"field{i}": i for i in range(5000)}).encode(),
]  # fmt: skip
TEXTS = [
    "", "\x00", "a\x00b", "\ud800", "\r\nx-injected: 1", "\u202e", "a" * 100_000, "\U0001d54f" * 300, "' OR 1=1 --",
    "../../../etc/passwd", "%s%n%d", "名" * 65, "..", "99999999999999999999",
]  # fmt: skip
RAW_TEXTS = ["%00", "%FF%FE", "%ED%A0%80", "%0d%0ax:1", "a" * 5000, ".."]
"""As they stand in an address."""
WISHES: dict[str, dict[str, Any]] = {
    "POST /v1/endpoints": {
        "name": "odd", "model": "m-1", "description": "x", "machine_type": "cpu-small", "precision": "BF16",
        "allowed_networks": ["10.0.0.0/8"],
    },
    "PATCH /v1/endpoints/{endpoint_id}": {
        "name": "odd", "model": "m-1", "description": "x", "machine_type": "cpu-small",
        "allowed_networks": ["10.0.0.1"],
    },
    "POST /v1/models": {
        "name": "odd", "base_model": "BASE", "description": "x", "precision": "BF16",
        "source": {"uri": "file:///nowhere", "endpoint_url": "http://127.0.0.1:9", "region": "r", "profile": "p"},
    },
    "POST /v1/models/{model_id}/versions": {
        "name": "odd", "precision": "AWQ-W4A16", "description": "x", "machine_type": "cpu-small",
        "calibration": {"uri": "file:///nowhere.jsonl", "format": "auto"}, "recipe": {"keep": ["lm_head"]},
        "output": {"uri": "file:///nowhere"}, "keep_logs": {"uri": "file:///nowhere"},
    },
    "POST /v1/jobs": {"type": "validate", "model": "m-1", "name": "odd"},
    "POST /v1/jobs:estimate": {
        "type": "finetune", "model": "m-1", "name": "odd", "method": "lora", "output_model_name": "odd-tuned",
        "dataset": {"uri": "file:///nowhere.jsonl"},
    },
    "POST /v1/members": {"name": "odd", "role": "developer", "expires_at": "2999-01-01T00:00:00Z"},
    "PATCH /v1/members/{member_id}": {"role": "developer", "expires_at": "2999-01-01T00:00:00Z"},
    "POST /v1/api-keys": {
        "description": "x", "role": "inference", "endpoints": ["one"], "member": "somebody",
        "expires_at": "2999-01-01T00:00:00Z",
    },
    "PATCH /v1/api-keys/{key_id}": {"limits": {"requests_per_minute": 60}},
    "POST /v1/workspaces": {"name": "odd"},
    "POST /v1/workspaces/{workspace_id}/api-keys": {"description": "x"},
    "POST /v1beta1/projects/{project}/locations/{location}:deploy": {
        "custom_model": {"gcs_uri": "file:///nowhere", "model_id": "m-1", "base_model": "BASE"},
        "model_config": {"model_user_id": "m-1"},
        "destination": "projects/x/locations/x",
        "deploy_config": {"dedicated_resources": {"machine_spec": {
            "machine_type": "cpu-small", "accelerator_type": "ACCELERATOR_TYPE_UNSPECIFIED",
        }}},
        "endpoint_config": {"endpoint_display_name": "odd", "private_service_connect_config": {
            "enable_private_service_connect": True, "project_allowlist": ["10.0.0.0/8"],
        }},
    },
}  # fmt: skip
"""One body for each operation that takes one, with every text that it may have."""


@pytest.fixture
def world(open_platform: Callable[..., Platform]) -> World:
    world = World(open_platform(keys_per_role=10_000, unfinished_jobs_per_workspace=10_000))
    world.renew()
    return world


@pytest.fixture
async def http(world: World) -> Any:
    transport = httpx.ASGITransport(world.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=world.headers) as http:
        yield http


def operations(world: World) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, description) of each."""
    for path, methods in world.app_description()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def filled(world: World, path: str) -> str:
    """The path with something that exists in each place."""
    names = [part.split("}")[0] for part in path.split("{")[1:]]
    known = world.known() if names else {}
    for name in names:
        path = path.replace(f"{{{name}}}", quote(str((known.get(name) or ["x"])[0])))
    return path


def told(answer: httpx.Response) -> str:
    """What is wrong with an answer, and to what."""
    wrong = complaints(answer.status_code, dict(answer.headers), answer.content)
    request = answer.request
    return f"{wrong}: {request.method} {str(request.url)[:200]} {request.content[:200]!r}" if wrong else ""


def odd_variants(wish: Any) -> Iterator[Any]:
    """The wish with each of its texts replaced by each odd one."""
    if isinstance(wish, str):
        yield from TEXTS
    for key in wish if isinstance(wish, dict) else range(len(wish)) if isinstance(wish, list) else ():
        for odd in odd_variants(wish[key]):
            copy = wish.copy()
            copy[key] = odd
            yield copy


@ONE_DATABASE
async def test_every_operation_that_takes_a_body_is_tried(world: World) -> None:
    assert {f"{method} {path}" for method, path, operation in operations(world) if "requestBody" in operation} == set(
        WISHES
    )


@ONE_DATABASE
async def test_the_description_says_how_errors_look(world: World) -> None:
    described = world.app_description()
    for method, path, operation in operations(world):
        assert {"4XX", "5XX"} <= set(operation["responses"]), (method, path)
        assert "422" not in operation["responses"]
    assert set(described["components"]["schemas"]["ErrorShown"]["required"]) == {"message", "type", "param", "code"}


@ONE_DATABASE
async def test_bodies_that_are_no_wishes(world: World, http: httpx.AsyncClient) -> None:
    faults = []
    for method, path, operation in operations(world):
        if "requestBody" not in operation:
            continue
        address = filled(world, path)  # no body makes anything go
        for content in BODIES:
            for kind in ("application/json", "text/plain"):
                answer = await http.request(method, address, content=content, headers={"content-type": kind})
                faults.append(told(answer) or ("" if answer.status_code < 500 else str(answer.status_code)))
    assert [fault for fault in faults if fault] == []


async def test_odd_texts_in_every_field_of_every_body(world: World, http: httpx.AsyncClient) -> None:
    base = world.known()["base_model"][0]
    faults = []
    for name, wish in WISHES.items():
        method, path = name.split()
        address = filled(world, path)
        for odd in odd_variants(json.loads(json.dumps(wish).replace('"BASE"', json.dumps(base)))):
            answer = await http.request(
                method, address, content=json.dumps(odd), headers={"content-type": "application/json"}
            )
            faults.append(told(answer))
    world.renew()  # what was taken can be carried out, or is refused in the records
    assert [fault for fault in faults if fault] == []


async def test_odd_texts_in_every_part_of_every_address(world: World, http: httpx.AsyncClient) -> None:
    faults = []
    for method, path, operation in operations(world):
        places = [one for one in operation.get("parameters", ()) if one["in"] in ("path", "query", "header")]
        for place in places:
            if place["name"] == "follow":
                continue
            for raw in RAW_TEXTS:
                address, headers = path, {}
                if place["in"] == "path":
                    address = filled(world, path.replace(f"{{{place['name']}}}", "RAW")).replace("RAW", raw)
                elif place["in"] == "query":
                    address = f"{filled(world, path)}?{quote(place['name'])}={raw}"
                else:
                    address, headers = filled(world, path), {place["name"]: raw.encode() + b"\xff"}
                faults.append(told(await http.request(method, address, headers=headers)))
    assert [fault for fault in faults if fault] == []


@ONE_DATABASE
async def test_methods_that_the_description_does_not_name(world: World, http: httpx.AsyncClient) -> None:
    faults = []
    for path, methods in world.app_description()["paths"].items():
        address = filled(world, path)
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"} - {
            method.upper() for method in methods
        }:
            answer = await http.request(method, address)
            refused = 400 <= answer.status_code < 500  # an action's path is also that of an endpoint of such a name
            faults.append(told(answer) or ("" if refused else f"{answer.status_code} {method} {path}"))
    assert [fault for fault in faults if fault] == []
