"""What a unit gets of a request, by what its endpoint adds and allows, and by the clients that people have."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from app.core.chat_terms import PROFILES, ChatTerms
from app.core.routing import RoutingTable
from tests.router.tables import MakeRouter, table
from tests.router.test_chat import CHAT, MESSAGES, WHOLE, body, whole
from tests.router.units import Answer

TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def offering(**terms: Any) -> RoutingTable:
    """The table, where ep-1 has these terms."""
    known = table()
    route = known.routes["ep-1"].model_copy(update={"chat": ChatTerms(**terms)})
    return known.model_copy(update={"routes": {**known.routes, "ep-1": route}})


async def test_an_endpoints_defaults_are_added_on_every_surface(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=offering(defaults=PROFILES["maas"]))
    sent = body(temperature=0.5)
    for path in (CHAT, "/api/v3/chat/completions", "/v1beta1/projects/p/locations/l/endpoints/ep-1/chat/completions"):
        assert (await router.http().post(path, json=sent)).status_code == 200
    expected = sent | PROFILES["maas"] | {"temperature": 0.5}
    assert [json.loads(got) for got in router.units.bodies] == [expected] * 3


async def test_a_change_of_terms_reaches_a_router_that_runs(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    wanted = body(response_format={"type": "json_object"})
    assert (await router.http().post(CHAT, json=wanted)).status_code == 400
    router.publish(offering(structured_output=True).model_copy(update={"number": 8}))
    assert (await router.http().post(CHAT, json=wanted)).status_code == 200


async def test_best_of_never_reaches_a_unit(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    assert (await router.http().post(CHAT, json=body(n=2, best_of=3))).status_code == 200
    assert json.loads(router.units.bodies[0]) == body(n=2)


async def test_the_openai_client_sends_tools_formats_and_what_has_no_effect(make_router: MakeRouter) -> None:
    router = await make_router(whole, snapshot=offering(tools=True, structured_output=True))
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}}
    client = router.openai().chat.completions
    answer = await client.create(
        model="ep-1", messages=[{"role": "developer", "content": "Be brief."}, *MESSAGES], tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "look_up"}}, parallel_tool_calls=False,
        response_format=wanted, reasoning_effort="low", max_completion_tokens=5, seed=1, logprobs=True, top_logprobs=2,
        logit_bias={"5": 1}, store=False, service_tier="auto", metadata={"a": "b"}, modalities=["text"], user="u",
        prompt_cache_key="k", safety_identifier="s", verbosity="medium",
        extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True},
    )  # fmt: skip
    message = answer.choices[0].message
    call: Any = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    spoken: Any = [
        *MESSAGES,
        message.model_dump(),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    await client.create(model="ep-1", messages=spoken)
    assert json.loads(router.units.bodies[1])["messages"] == spoken


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's own, of what it has parsed
async def test_what_the_openai_client_has_parsed_comes_back_and_stays_here(make_router: MakeRouter) -> None:
    class City(BaseModel):
        name: str

    async def says_paris(answer: Answer) -> None:
        whole = json.loads(WHOLE)
        whole["choices"][0]["message"]["content"] = '{"name": "Paris"}'
        await answer.send("application/json", json.dumps(whole).encode())

    router = await make_router(says_paris, snapshot=offering(structured_output=True))
    client = router.openai().chat.completions
    answer = await client.parse(model="ep-1", messages=MESSAGES, response_format=City)
    said = answer.choices[0].message
    assert said.parsed == City(name="Paris")
    await client.create(model="ep-1", messages=[*MESSAGES, said.model_dump(), *MESSAGES])
    assert json.loads(router.units.bodies[1])["messages"][1] == said.model_dump(exclude={"parsed"})


async def test_ark_clients_send_null_for_what_nobody_asked(make_router: MakeRouter) -> None:
    router = await make_router(whole)
    nulls = dict.fromkeys(
        ("frequency_penalty", "function_call", "logit_bias", "logprobs", "max_tokens", "presence_penalty", "stop",
         "stream", "stream_options", "temperature", "tools", "top_logprobs", "top_p", "user", "repetition_penalty", "n",
         "service_tier", "tool_choice", "parallel_tool_calls", "response_format", "thinking",
         "max_completion_tokens", "reasoning_effort")
    )  # fmt: skip
    assert (await router.http().post("/api/v3/chat/completions", json=body(**nulls))).status_code == 200
    got = json.loads(router.units.bodies[0])
    assert "tool_choice" not in got  # for the engine, null is not auto
    assert got["messages"] == MESSAGES


@pytest.mark.parametrize("fields", [{"max_tokens": 5}, {"max_completion_tokens": 5}])
async def test_what_a_caller_says_comes_before_the_defaults(make_router: MakeRouter, fields: dict[str, int]) -> None:
    router = await make_router(whole, snapshot=offering(defaults={"max_tokens": 16}))
    sent = body(**fields)
    assert (await router.http().post(CHAT, json=sent)).status_code == 200
    assert json.loads(router.units.bodies[0]) == sent
