"""GET /docs: a page for people, which loads nothing and tells nothing of endpoints."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from tests.router.tables import MakeRouter
from tests.router.units import forever

LARGEST_BYTES = 1 << 20
VOID = {"meta", "br"}
CLOSED_BY_THEMSELVES = {"tr", "td", "th", "p", "html"}


class Page(HTMLParser):
    """What a browser sees: tags, attributes, text; and whether elements are closed in their order."""

    def __init__(self, page: str):
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID | CLOSED_BY_THEMSELVES:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID | CLOSED_BY_THEMSELVES:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


async def test_the_page_shows_every_path_field_and_header(make_router: MakeRouter) -> None:
    http = (await make_router(forever)).http(None)
    answer = await http.get("/docs")
    description = (await http.get("/openapi.json")).json()
    page = Page(answer.text)
    assert (answer.status_code, page.open) == (200, [])
    assert len(answer.content) < LARGEST_BYTES
    for path in description["paths"]:
        assert path in page.text
    components = description["components"]
    for name, schema in components["schemas"].items():
        assert name in page.ids
        assert all(field in page.text for field in schema.get("properties", ()))
    assert all(name in page.text for name in components["headers"])
    assert "number from 0 to 2" in page.text  # of temperature


async def test_it_loads_nothing_and_runs_nothing(make_router: MakeRouter) -> None:
    answer = await (await make_router(forever)).http(None).get("/docs")
    page = Page(answer.text)
    assert not page.tags & {"script", "img", "iframe", "link", "object", "form", "base"}
    assert {one for one in page.addresses if not one.startswith("#")} == {"/openapi.json"}
    assert {one[1:] for one in page.addresses if one.startswith("#")} <= set(page.ids)
    policy = answer.headers["content-security-policy"]
    style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_it_says_nothing_about_endpoints(make_router: MakeRouter) -> None:
    page = (await (await make_router(forever)).http(None).get("/docs")).text
    assert not re.search(r"\b(ep-1|ep-down|ep-theirs|demo)\b", page)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "models.example.com:8443"}, "http://models.example.com:8443"),
        ({"x-forwarded-host": "models.example.com", "x-forwarded-proto": "https"}, "https://models.example.com"),
        ({"x-forwarded-host": '"><script>alert(1)</script>'}, "http://router:80"),
        ({"x-forwarded-host": "a b"}, "http://router:80"),
    ],
)
async def test_examples_name_the_address_that_was_asked(
    make_router: MakeRouter, headers: dict[str, str], expected: str
) -> None:
    answer = await (await make_router(forever)).http(None).get("/docs", headers=headers)
    page = Page(answer.text)
    for path in ("/v1", "/api/v3", "/v1/chat/completions", "/v1beta1/projects/PROJECT/locations/global/endpoints/"):
        assert f"{expected}{path}" in page.text
    for client in ("OpenAI", "Ark", "curl", "LangChain", "requests", "Dify", "Open WebUI", ":predict"):
        assert client in page.text
    assert "alert" not in answer.text
    assert "script" not in page.tags


async def test_it_is_made_of_the_description_that_is_served(make_router: MakeRouter) -> None:
    http = (await make_router(forever)).http(None)
    description = (await http.get("/openapi.json")).json()
    page = Page((await http.get("/docs")).text).text
    for operations in description["paths"].values():
        for operation in operations.values():
            assert operation["summary"] in page
    assert json.dumps("chatCompletions") in page
