"""GET /docs: the OpenAPI description as one page with examples, which loads nothing from anywhere."""

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import get_args

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.core.addresses import base_url
from app.core.snippets import Client, snippet
from app.router.openapi import DESCRIPTION
from app.router.openapi_parts import Json

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin-top: 2rem; overflow-wrap: anywhere; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); }
summary { cursor: pointer; }
"""
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_NAMES: dict[Client, str] = {
    "openai": "OpenAI's client", "ark": "Ark's SDK", "curl": "curl", "langchain": "LangChain", "requests": "requests",
    "vertex": "Vertex AI's chat", "predict": "Vertex AI's :predict",
}  # fmt: skip
_DIFY = """\
Settings > Model Provider > OpenAI-API-compatible > Add Model
Model Type        LLM
Model Name        ENDPOINT
API Key           your key
API endpoint URL  {base}/v1
Completion mode   Chat
"""
_OPEN_WEBUI = """\
# on another machine or in a container, 127.0.0.1 is not this platform
docker run -d -p 3000:8080 -e OPENAI_API_BASE_URL={base}/v1 -e OPENAI_API_KEY=your-key \\
  -v open-webui:/app/backend/data ghcr.io/open-webui/open-webui:main
"""


_HEAD = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    f"<title>{escape(DESCRIPTION['info']['title'])}</title><style>{_STYLE}</style>"
    f"<h1>{escape(DESCRIPTION['info']['title'])}</h1><p>{escape(DESCRIPTION['info']['description'])}</p>"
    "<p><a href=#examples>Examples</a> · <a href=#paths>Paths</a> · <a href=#headers>Headers</a> · "
    "<a href=#objects>Objects</a> · <a href=/openapi.json>openapi.json</a></p>"
)
_BOUNDS = {
    "minimum": "from", "exclusiveMinimum": "above", "minLength": "of", "minItems": "of",
    "maximum": "to", "maxLength": "to", "maxItems": "to",
}  # fmt: skip
MOST_INLINE = 6
"""Fields of an object that are told in one line."""


async def docs(request: Request) -> Response:
    """The page, with examples for the address by which the caller reached us."""
    host = request.headers.get("x-forwarded-host") or request.headers.get("host")
    scheme = request.headers.get("x-forwarded-proto") or request.url.scheme
    name, port = request.scope["server"] or ("127.0.0.1", None)
    base = base_url(host, scheme, (name, port or 80))
    return HTMLResponse(_HEAD + _examples(base) + _reference() + "</html>", headers=_HEADERS)


def _examples(base: str) -> str:
    code = [(_NAMES[client], snippet(client, "ENDPOINT", "PROJECT", base).code) for client in get_args(Client)]
    code += [("Dify", _DIFY.format(base=base)), ("Open WebUI", _OPEN_WEBUI.format(base=base))]
    return "<h2 id=examples>Examples</h2>" + "".join(
        f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>" for name, text in code
    )


@cache
def _reference() -> str:
    paths = [
        _operation(method, path, operation)
        for path, operations in DESCRIPTION["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [_schema(name, schema) for name, schema in DESCRIPTION["components"]["schemas"].items()]
    headers = [
        (name, _words(header["schema"]), header["description"])
        for name, header in DESCRIPTION["components"]["headers"].items()
    ]
    return (
        f"<h2 id=paths>Paths</h2>{''.join(paths)}"
        f"<h2 id=headers>Headers of answers</h2>{_table(('header', 'what', ''), headers)}"
        f"<h2 id=objects>Objects</h2>{''.join(schemas)}"
    )


def _operation(method: str, path: str, operation: Json) -> str:
    key = "" if operation.get("security") == [] else "<p>Needs <code>Authorization: Bearer mu-...</code></p>"
    body = operation.get("requestBody")
    wanted = f"<p>Body: {_words(body['content']['application/json']['schema'])}</p>" if body else ""
    parameters = [
        (one["name"], f"{one['in']}, {_words(one['schema'])}", one.get("description", ""))
        for one in operation["parameters"]
    ]
    answers = [(status, _answer(answer), answer["description"]) for status, answer in operation["responses"].items()]
    return (
        f"<h3>{method.upper()} <code>{escape(path)}</code></h3><p>{escape(operation['summary'])}.</p>{key}{wanted}"
        f"{_table(('parameter', 'what', ''), parameters)}{_table(('status', 'body and headers', ''), answers)}"
    )


def _answer(answer: Json) -> str:
    bodies = [f"{escape(kind)}: {_words(content['schema'])}" for kind, content in answer["content"].items()]
    headers = ", ".join(f"<code>{escape(name)}</code>" for name in answer.get("headers", ()))
    return "<br>".join(bodies) + (f"<details><summary>headers</summary>{headers}</details>" if headers else "")


def _schema(name: str, schema: Json) -> str:
    about = f"<p>{escape(schema.get('description', ''))}</p>"
    return f"<h3 id={name}>{name}</h3>{about}{_fields(schema) if 'properties' in schema else _words(schema)}"


def _fields(schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        (
            name,
            _words(form)
            + (", required" if name in required else "")
            + (f", {_value(form['default'])} if left out" if form.get("default") is not None else ""),
            form.get("description", ""),
        )
        for name, form in schema["properties"].items()
    ]
    return _table(("field", "what", ""), rows)


def _table(heads: tuple[str, str, str], rows: Iterable[tuple[str, str, str]]) -> str:
    """Rows of a name, of HTML, and of a text."""
    body = [f"<tr><td><code>{escape(name)}</code><td>{what}<td>{escape(text)}" for name, what, text in rows]
    return f"<table><tr>{''.join(f'<th>{head}' for head in heads)}{''.join(body)}</table>" if body else ""


def _words(schema: Json) -> str:
    """A schema in words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href=#{name}>{name}</a>"
    if fields := schema.get("properties"):
        if len(fields) > MOST_INLINE:
            return f"<details><summary>{escape(schema.get('title', 'object'))}</summary>{_fields(schema)}</details>"
        return "{" + ", ".join(f"<code>{escape(name)}</code>: {_words(form)}" for name, form in fields.items()) + "}"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_words(choice) for choice in choices if choice != {"type": "null"})
    if "const" in schema:
        return _value(schema["const"])
    if "enum" in schema:
        return " or ".join(_value(one) for one in schema["enum"] if one is not None)
    kinds = schema.get("type", "anything")
    kind = kinds if isinstance(kinds, str) else " or ".join(one for one in kinds if one != "null")
    if kind == "array" and "items" in schema:
        return f"array{_bounds(schema)} of {_words(schema['items'])}"
    return escape(kind) + _bounds(schema)


def _bounds(schema: Json) -> str:
    told = [f" {word} {schema[name]}" for name, word in _BOUNDS.items() if name in schema]
    return "".join(told) + (" characters" if {"minLength", "maxLength"} & set(schema) else "")


def _value(value: object) -> str:
    return f"<code>{escape(json.dumps(value, ensure_ascii=False))}</code>"
