"""The OpenAPI description of the inference API, made from the same table that checks requests."""

from collections.abc import Sequence

from app.core.chat_rules import AddressedChatRequest, ChatRequest
from app.core.wakes import DEFAULT_WISH, LONGEST_WAIT_S, TIMEOUT_HEADER, WAKE_HEADER
from app.router.chat import ENDPOINT
from app.router.openapi_answers import ANSWERS
from app.router.openapi_parts import COUNT, HEADERS, RATE_HEADERS, SCHEMAS, TEXT, Json, answers, array, record, ref
from app.router.openapi_vertex import SCHEMAS as VERTEX_SCHEMAS
from app.router.openapi_vertex import forms as vertex_forms
from app.router.surfaces.vertex import LOCATION, THE_ENDPOINT

_SCHEMA, _ADDRESSED = (
    form.model_json_schema(ref_template="#/components/schemas/{model}") for form in (ChatRequest, AddressedChatRequest)
)
_PARTS: Json = _SCHEMA.pop("$defs", {}) | _ADDRESSED.pop("$defs", {})
_WAKE: list[Json] = [
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


_JSON, _EVENTS = "application/json", "text/event-stream"
_PLACE = ("project", "location")
_REFUSED = ("400", "401", "403", "404", "413", "429", "500", "503", "504")
_TOLD = ("x-modelunit-revision", *RATE_HEADERS)
_WHOLE: Json = {_JSON: {"schema": ref("ChatAnswer")}}
_STREAM: Json = {
    _EVENTS: {
        "schema": {
            "type": "string",
            "description": "Each event is `data:` and a ChatEvent; the last one of a complete answer is "
            "`data: [DONE]`. An answer that breaks off ends with an Error instead. Comments (`:`) come while a unit "
            "starts.",
        }
    }
}


def _operation(
    operation: str, summary: str, responses: Json, path_parameters: Sequence[str] = (), body: Json | None = None
) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_parameters
    ]
    described: Json = {"operationId": operation, "summary": summary, "parameters": parameters, "responses": responses}
    if body:
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
        described["parameters"] = parameters + _WAKE
    return described


def _chat(operation: str, form: str, path_parameters: Sequence[str] = ()) -> Json:
    responses = answers("The answer in OpenAI's format", _WHOLE | _STREAM, *_REFUSED, headers=_TOLD)
    summary = "Chat with an endpoint; with stream set, the answer comes as server-sent events"
    return {"post": _operation(operation, summary, responses, path_parameters, ref(form))}


def _predict(operation: str, summary: str, content: Json, body: Json) -> Json:
    responses = answers("The predictions", content, *_REFUSED, headers=_TOLD)
    return {"post": _operation(operation, summary, responses, (*_PLACE, ENDPOINT), body)}


def _read(
    operation: str, summary: str, form: Json, *refusals: str, path_parameters: Sequence[str] = (), kind: str = _JSON
) -> Json:
    responses = answers(summary, {kind: {"schema": form}}, *refusals)
    return {"get": _operation(operation, summary, responses, path_parameters)}


def _open(described: Json) -> Json:
    """The same for everybody, without a key."""
    return {method: operation | {"security": []} for method, operation in described.items()}


_READ = ("401", "403", "404", "503")
_DEPLOY = _operation(
    "deployVertexModel",
    "Make an endpoint of a folder of weights, or of a model; /platform/openapi.json has the fields",
    answers("The operation", {_JSON: {"schema": ref("VertexOperation")}}, "400", "401", "403", "404", "409", "503"),
    _PLACE,
)
_DEPLOY["requestBody"] = {"required": True, "content": {_JSON: {"schema": {"type": "object"}}}}

_LIST = _operation(
    "listVertexEndpoints",
    "The workspace's endpoints, oldest first",
    answers(
        "One page",
        {_JSON: {"schema": record({"endpoints": array(ref("VertexEndpoint")), "nextPageToken": TEXT})}},
        "400", *_READ,
    ),
    _PLACE,
)  # fmt: skip
_LIST["parameters"] += [
    {"name": "pageSize", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    {"name": "pageToken", "in": "query", "schema": TEXT},
]
_STATE = record({"status": TEXT, "routing_table": COUNT, "control_plane": {"enum": ["reachable", "unreachable"]}})
_READY: Json = {
    **answers("It does", {_JSON: {"schema": _STATE}}),
    "503": {"description": "It waits for its first routing table", "content": {_JSON: {"schema": _STATE}}},
}

PATHS: Json = {
    "/v1/chat/completions": _chat("createChatCompletion", "ChatRequest"),
    "/api/v3/chat/completions": _chat("createArkChatCompletion", "ChatRequest"),
    f"{THE_ENDPOINT}/chat/completions": _chat(
        "createVertexChatCompletion", "AddressedChatRequest", (*_PLACE, ENDPOINT)
    ),
    f"{THE_ENDPOINT}:predict": _predict(
        "predict",
        "Answer several prompts or chats in one call; the first that fails fails it, and the error names the instance",
        {_JSON: {"schema": ref("PredictResponse")}},
        ref("PredictRequest"),
    ),
    f"{THE_ENDPOINT}:rawPredict": _predict(
        "rawPredict",
        "A body with instances is answered as by :predict, any other as by /chat/completions",
        {_JSON: {"schema": {"anyOf": [ref("PredictResponse"), ref("ChatAnswer")]}}} | _STREAM,
        {"anyOf": [ref("PredictRequest"), ref("AddressedChatRequest")]},
    ),
    f"{THE_ENDPOINT}:streamRawPredict": _predict(
        "streamRawPredict",
        "A chat, or a single instance, answered as a stream; `stream` may be left out, and not be false",
        _STREAM,
        {"anyOf": [ref("PredictRequest"), ref("AddressedChatRequest")]},
    ),
    "/v1/models": _read("listModels", "The endpoints that this key may call", ref("Models"), "401"),
    "/v1/models/{model}": _read(
        "getModel", "One of them, by ID or name", ref("Model"), "401", "404", path_parameters=("model",)
    ),
    THE_ENDPOINT: _read(
        "getVertexEndpoint", "One endpoint", ref("VertexEndpoint"), *_READ, path_parameters=(*_PLACE, ENDPOINT)
    ),
    f"{LOCATION}/endpoints": {"get": _LIST},
    f"{LOCATION}/operations/{{operation}}": _read(
        "getVertexOperation",
        "How far a deployment is",
        ref("VertexOperation"),
        *_READ,
        path_parameters=(*_PLACE, "operation"),
    ),
    f"{LOCATION}:deploy": {"post": _DEPLOY},
    "/healthz": _open(_read("isAlive", "Whether this router is alive", record({"status": TEXT}))),
    "/readyz": _open({"get": _operation("isReady", "Whether this router knows its endpoints", _READY)}),
    "/metrics": _open(
        _read("metrics", "For Prometheus; outside `metrics_networks` with an operator's key", TEXT, "401", "403",
              kind="text/plain")
    ),
    "/openapi.json": _open(_read("describe", "This description", {"type": "object"})),
    "/docs": _open(_read("document", "This description as a page, with examples", TEXT, kind="text/html")),
}  # fmt: skip

DESCRIPTION: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "modelunit inference",
        "version": "1",
        "description": "One chat API under the paths of three clients: OpenAI's, Ark's and Vertex AI's. Types are "
        "strict, fields that are not described are refused, and what is null counts as left out.",
    },
    "security": [{"key": []}],
    "paths": PATHS,
    "components": {
        "schemas": {"ChatRequest": _SCHEMA, "AddressedChatRequest": _ADDRESSED}
        | _PARTS
        | ANSWERS
        | vertex_forms(_ADDRESSED)
        | SCHEMAS
        | VERTEX_SCHEMAS,
        "headers": HEADERS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key: mu-..."}},
    },
}
