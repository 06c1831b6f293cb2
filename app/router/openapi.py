"""The OpenAPI description of the inference API, made from the same table that checks requests."""

from typing import Any

from app.core.chat_rules import ChatRequest

_SCHEMA = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
_PARTS: dict[str, Any] = _SCHEMA.pop("$defs", {})
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


def _responses(good: dict[str, Any]) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    meanings = {
        "400": "A field is wrong; `param` names it",
        "401": "No key, or not a valid one",
        "404": "No such endpoint",
        "413": "The body is too large",
        "503": "No unit can serve now; see Retry-After",
        "504": "A deadline passed",
    }
    return {"200": good} | {status: {"description": meaning, **error} for status, meaning in meanings.items()}


DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "modelunit inference", "version": "1"},
    "security": [{"key": []}],
    "paths": {
        "/v1/chat/completions": {
            "post": {
                "operationId": "createChatCompletion",
                "summary": "Chat with an endpoint; with stream set, the answer comes as server-sent events",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
                },
                "responses": _responses(
                    {
                        "description": "The answer in OpenAI's format",
                        "content": {"application/json": {}, "text/event-stream": {}},
                    }
                ),
            }
        },
        "/v1/models": {
            "get": {
                "operationId": "listModels",
                "summary": "The endpoints that this key may call",
                "responses": _responses({"description": "A list", "content": {"application/json": {}}}),
            }
        },
    },
    "components": {
        "schemas": {"ChatRequest": _SCHEMA, "Error": _ERROR} | _PARTS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    },
}
