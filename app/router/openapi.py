"""The OpenAPI description of the inference API, made from the same table that checks requests."""

from collections.abc import Sequence
from typing import Any

from app.core.chat_rules import AddressedChatRequest, ChatRequest
from app.core.wakes import DEFAULT_WISH, LONGEST_WAIT_S, TIMEOUT_HEADER, WAKE_HEADER
from app.router.openapi_answers import ANSWERS

_SCHEMA, _ADDRESSED = (
    form.model_json_schema(ref_template="#/components/schemas/{model}") for form in (ChatRequest, AddressedChatRequest)
)
_PARTS: dict[str, Any] = _SCHEMA.pop("$defs", {}) | _ADDRESSED.pop("$defs", {})
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


_WAKE: list[dict[str, Any]] = [
    {
        "name": WAKE_HEADER,
        "in": "header",
        "description": "Where no unit runs: wait for one, or get 503 with Retry-After at once; it is woken either way",
        "schema": {"type": "string", "enum": ["wait", "fail"], "default": "wait"},
    },
    {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": "How long to wait for a unit",
        "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_WAIT_S, "default": int(DEFAULT_WISH.timeout_s)},
    },
]


_RATES: dict[str, Any] = {
    f"x-ratelimit-{what}-{kind}": {"description": f"{meaning}, where such a limit holds", "schema": {"type": "string"}}
    for kind in ("requests", "tokens")
    for what, meaning in (
        ("limit", f"The most {kind} a minute"),
        ("remaining", f"How many {kind} would be let through now"),
        ("reset", "How long it takes until all that may go at once may, such as 6m0s"),
    )
}


def _responses(good: dict[str, Any], *refusals: str) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    meanings = {
        "400": "A field is wrong; `param` names it",
        "401": "No key, or not a valid one",
        "403": "The endpoint does not take requests from this network",
        "404": "No such endpoint",
        "413": "The body is too large",
        "429": "Above a limit of the endpoint or key, or more requests wait than may; see Retry-After",
        "503": "No unit can serve now; see Retry-After",
        "504": "A deadline passed",
    }
    limited = {"429": {"headers": _RATES}}
    return {"200": good} | {
        status: {"description": meanings[status], **error, **limited.get(status, {})} for status in refusals
    }


def _chat(operation: str, form: str, path_parameters: Sequence[str] = ()) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_parameters
    ] + _WAKE
    good = {
        "description": "The answer in OpenAI's format; each event of a stream is a ChatEvent, the last one [DONE]",
        "headers": _RATES,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ChatAnswer"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    return {
        "post": {
            "operationId": operation,
            "summary": "Chat with an endpoint; with stream set, the answer comes as server-sent events",
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{form}"}}},
            },
            "responses": _responses(good, "400", "401", "403", "404", "413", "429", "503", "504"),
        }
    }


DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "modelunit inference", "version": "1"},
    "security": [{"key": []}],
    "paths": {
        "/v1/chat/completions": _chat("createChatCompletion", "ChatRequest"),
        "/api/v3/chat/completions": _chat("createArkChatCompletion", "ChatRequest"),
        "/v1beta1/projects/{project}/locations/{location}/endpoints/{endpoint}/chat/completions": _chat(
            "createVertexChatCompletion", "AddressedChatRequest", ("project", "location", "endpoint")
        ),
        "/v1/models": {
            "get": {
                "operationId": "listModels",
                "summary": "The endpoints that this key may call",
                "responses": _responses({"description": "A list", "content": {"application/json": {}}}, "401"),
            }
        },
    },
    "components": {
        "schemas": {"ChatRequest": _SCHEMA, "AddressedChatRequest": _ADDRESSED, "Error": _ERROR} | ANSWERS | _PARTS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    },
}
