"""Code that calls an endpoint, ready to run. The key comes from the environment of whoever runs it."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.core.records import Endpoint
from app.settings import Settings

Client = Literal["openai", "ark", "curl", "vertex"]
"""openai: OpenAI's Python client. ark: Volcengine's Python SDK. curl: a shell. vertex: as Vertex AI's endpoints are
called, by OpenAI's client on the endpoint's own path."""

_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_EVERYWHERE = {"0.0.0.0", "::"}

_OPENAI = """\
# pip install openai; export MODELUNIT_API_KEY=your key
import os

from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key=os.environ["MODELUNIT_API_KEY"])
completion = client.chat.completions.create(
    model="{endpoint}",
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(completion.choices[0].message.content)
"""
_ARK = """\
# pip install volcengine-ark-runtime; export ARK_API_KEY=your key
import os

from volcenginesdkarkruntime import Ark

client = Ark(base_url="{base}/api/v3", api_key=os.environ["ARK_API_KEY"])
completion = client.chat.completions.create(
    model="{endpoint}",
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(completion.choices[0].message.content)
"""
_CURL = """\
# export MODELUNIT_API_KEY=your key
curl --fail-with-body {base}/v1/chat/completions \\
  -H "Authorization: Bearer $MODELUNIT_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{endpoint}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""
_VERTEX = """\
# pip install openai; export MODELUNIT_API_KEY=your key
import os

from openai import OpenAI

client = OpenAI(
    base_url="{base}/v1beta1/projects/{workspace}/locations/global/endpoints/{endpoint}",
    api_key=os.environ["MODELUNIT_API_KEY"],
)
completion = client.chat.completions.create(
    model="{endpoint}",
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(completion.choices[0].message.content)
"""
_CODE: dict[Client, tuple[str, str]] = {
    "openai": ("python", _OPENAI),
    "ark": ("python", _ARK),
    "curl": ("shell", _CURL),
    "vertex": ("python", _VERTEX),
}


class Snippet(BaseModel):
    """Code to copy."""

    model_config = ConfigDict(frozen=True)

    client: Client
    language: str
    code: str


def snippet(client: Client, endpoint: Endpoint, base_url: str) -> Snippet:
    """How to call this endpoint with that client."""
    language, code = _CODE[client]
    code = code.format(base=base_url, endpoint=endpoint.id, workspace=endpoint.workspace)
    return Snippet(client=client, language=language, code=code)


def base_url(settings: Settings, host: str | None, scheme: str | None) -> str:
    """Where callers reach the routers: at the host (and by the scheme) that this caller used, else as settings say.

    A host comes from the caller and goes into code: one that does not look like a host counts as none.
    """
    if host is None or not _HOST.fullmatch(host):
        ours = "127.0.0.1" if settings.http_host in _EVERYWHERE else settings.http_host
        return f"http://{f'[{ours}]' if ':' in ours else ours}:{settings.http_port}"
    return f"{'https' if scheme == 'https' else 'http'}://{host}"
