"""What the parts of the OpenAPI description are made of: forms, headers of answers, refusals."""

from typing import Any

Json = dict[str, Any]


def ref(name: str) -> Json:
    """The schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Json) -> Json:
    return {"type": "array", "items": items}


def record(required: Json, **optional: Any) -> Json:
    """An object; it may have further fields, which clients pass over."""
    return {"type": "object", "required": [*required], "properties": required | optional}


TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
COUNT: Json = {"type": "integer", "minimum": 0}
SECONDS: Json = {"type": "integer", "description": "Unix time in seconds"}

SCHEMAS: Json = {
    "Model": record(
        {
            "id": {"type": "string", "description": "The endpoint's ID, for `model`"},
            "object": {"const": "model"}, "created": SECONDS,
            "owned_by": {"type": "string", "description": "The workspace"},
            "name": {"type": "string", "description": "The endpoint's name, which `model` takes too"},
            "state": {"type": "string", "description": "Such as healthy, sleeping or scheduling"},
        }
    ),
    "Models": record({"object": {"const": "list"}, "data": array(ref("Model"))}),
    "Error": record(
        {"error": record({"message": TEXT, "type": TEXT, "param": TEXT_OR_NULL, "code": TEXT_OR_NULL})}
    ),
}  # fmt: skip

HEADERS: Json = {
    "x-request-id": {"description": "The request's ID; operators find it in logs", "schema": TEXT},
    "x-modelunit-revision": {"description": "Which revision of the endpoint answered", "schema": TEXT},
    "Retry-After": {"description": "Seconds until another try makes sense", "schema": COUNT},
    **{
        f"x-ratelimit-{what}-{kind}": {"description": f"{meaning} {kind} a minute, where there is one", "schema": form}
        for kind in ("requests", "tokens")
        for what, meaning, form in (
            ("limit", "The tightest limit of", COUNT),
            ("remaining", "What is left of the tightest limit of", COUNT),
            ("reset", "Until as much is left as ever, such as 1s or 6m0s, of the limit of", TEXT),
        )
    },
}
RATE_HEADERS = tuple(name for name in HEADERS if name.startswith("x-ratelimit-"))

_REFUSALS = {
    "400": "A field is wrong; `param` names it, and `message` says what came and what is allowed",
    "401": "No key, or not a valid one",
    "403": "The endpoint does not take requests from this network, or the key's role is too low",
    "404": "No such endpoint, or none that this key may call",
    "409": "The state forbids it; `message` says which",
    "413": "The body is too large",
    "429": "More requests a second, or more that wait, than the endpoint takes (`type` ModelArts.4206, `code` "
    "queue_full), or more than the key may send",
    "500": "The platform failed; its operator finds the request by x-request-id",
    "503": "No unit, or no control plane, can serve now",
    "504": "A deadline passed",
}
_RETRIES = ("429", "503")


def answers(description: str, content: Json, *refusals: str, headers: tuple[str, ...] = ()) -> Json:
    """The responses of an operation: the good one, with `headers` beside the request's ID, and these refusals."""
    good = {"description": description, "headers": _headers("x-request-id", *headers), "content": content}
    return {"200": good} | {status: _refusal(status, headers) for status in refusals}


def _refusal(status: str, headers: tuple[str, ...]) -> Json:
    told = [name for name in headers if name in RATE_HEADERS and status == "429"]
    after = ["Retry-After"] if status in _RETRIES else []
    return {
        "description": _REFUSALS[status],
        "headers": _headers("x-request-id", *after, *told),
        "content": {"application/json": {"schema": ref("Error")}},
    }


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
