"""Code that calls an endpoint, ready to run. The key comes from the environment of whoever runs it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Client = Literal["openai", "ark", "curl", "vertex", "predict", "requests", "langchain"]
"""openai: OpenAI's Python client. ark: Volcengine's Python SDK. curl: a shell. vertex: as Vertex AI's endpoints are
called, by OpenAI's client on the endpoint's own path. predict: Vertex AI's :predict, by httpx. requests: as S3 calls
its services. langchain: LangChain's client of OpenAI's API."""

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
_PREDICT = """\
# pip install httpx; export MODELUNIT_API_KEY=your key
import os

import httpx

answer = httpx.post(
    "{base}/v1beta1/projects/{workspace}/locations/global/endpoints/{endpoint}:predict",
    headers={{"Authorization": f"Bearer {{os.environ['MODELUNIT_API_KEY']}}"}},
    json={{"instances": [{{"prompt": "Hello"}}], "parameters": {{"max_tokens": 64}}}},
    timeout=600,
)
answer.raise_for_status()
print(answer.json()["predictions"][0])
"""
_REQUESTS = """\
# pip install requests; export MODELUNIT_API_KEY=your key
import os

import requests

answer = requests.post(
    "{base}/v1/chat/completions",
    headers={{"Authorization": f"Bearer {{os.environ['MODELUNIT_API_KEY']}}"}},
    json={{"model": "{endpoint}", "max_tokens": 20, "messages": [{{"role": "user", "content": "Hello"}}]}},
    timeout=600,
)
print(answer.status_code)
print(answer.text)
"""
_LANGCHAIN = """\
# pip install langchain-openai; export MODELUNIT_API_KEY=your key
import os

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(base_url="{base}/v1", api_key=os.environ["MODELUNIT_API_KEY"], model="{endpoint}")
print(chat.invoke("Hello").content)
"""
_CODE: dict[Client, tuple[str, str]] = {
    "openai": ("python", _OPENAI),
    "ark": ("python", _ARK),
    "curl": ("shell", _CURL),
    "vertex": ("python", _VERTEX),
    "predict": ("python", _PREDICT),
    "requests": ("python", _REQUESTS),
    "langchain": ("python", _LANGCHAIN),
}


class Snippet(BaseModel):
    """Code to copy."""

    model_config = ConfigDict(frozen=True)

    client: Client
    language: str
    code: str


def snippet(client: Client, endpoint: str, workspace: str, base_url: str) -> Snippet:
    """How to call the endpoint of this ID with that client; `base_url` is where callers reach the routers."""
    language, code = _CODE[client]
    return Snippet(
        client=client, language=language, code=code.format(base=base_url, endpoint=endpoint, workspace=workspace)
    )
