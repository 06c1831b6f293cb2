"""Requests to the whole control API, made from its own description."""

import re
from collections.abc import Collection
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from tests.control_plane.worlds import World, complaints

TRUE = {"true", "1", "yes", "on", "t", "y"}


class Fuzzer:
    """Sends requests to every operation of the description, and keeps what was wrong with the answers."""

    def __init__(self, world: World, seed: int):
        self._world = world
        self._seed = seed
        self._schema = schemathesis.openapi.from_asgi("/openapi.json", world.app)
        self.faults: list[str] = []
        self.statuses: dict[str, list[int]] = {}
        """Operation -> the statuses of its answers."""

    def run(self, examples: int) -> None:
        """So many requests as the description allows, and as many that it forbids, to each operation."""
        for found in self._schema.get_all_operations():
            operation = found.ok()
            typed = operation.query or operation.headers or operation.body
            modes = GenerationMode if typed else (GenerationMode.POSITIVE,)  # every text is a path's right type
            for mode in modes:
                self._world.renew()
                cases = operation.as_strategy(generation_mode=mode)
                self._send(cases, examples, self._world.headers, often=mode == GenerationMode.POSITIVE)
        self._world.renew()

    def run_for(self, stranger: dict[str, str], examples: int, secrets: set[str]) -> None:
        """So many requests with these headers, about things that exist; no answer may hold one of the secrets."""
        for found in self._schema.get_all_operations():
            self._send(found.ok().as_strategy(), examples, stranger, often=True, secrets=secrets)

    def _send(
        self,
        cases: st.SearchStrategy[Case],
        examples: int,
        headers: dict[str, str],
        *,
        often: bool,
        secrets: Collection[str] = (),
    ) -> None:
        @hypothesis.seed(self._seed)
        @hypothesis.settings(
            max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(st.data(), cases)
        def send(data: st.DataObject, case: Case) -> None:
            known = self._world.known()
            share = st.sampled_from((True, True, True, False) if often else (True, False))
            case.path_parameters = _meant(case.path_parameters, known, data, st.just(True) if often else share)
            case.query = _bounded(_meant(case.query, known, data, share))
            case.body = _meant(case.body, known, data, share)
            answer = case.call(headers=headers)
            self.statuses.setdefault(case.operation.label, []).append(answer.status_code)
            wrong = complaints(answer.status_code, {k.lower(): v[0] for k, v in answer.headers.items()}, answer.content)
            own = case.path == "/v1/audit"  # which says what they named
            told = answer.text if answer.status_code < 300 and not own else ""
            if any(secret in told for secret in secrets):
                wrong = "it shows another workspace's things"
            if wrong:
                self.faults.append(f"{wrong}: {case.as_curl_command()}\n{answer.text[:500]}")

        send()


def _meant(given: Any, known: dict[str, list[Any]], data: st.DataObject, share: st.SearchStrategy[bool]) -> Any:
    """The same with a share of the values replaced by ones that exist."""
    if not isinstance(given, dict):
        return given
    meant = {}
    for name, value in given.items():
        values = known.get(name)
        if values and data.draw(share):
            meant[name] = data.draw(st.sampled_from(values))
        else:
            meant[name] = _meant(value, known, data, share)
    return meant


def _bounded(query: Any) -> Any:
    """Without `follow`, which would hold the connection for an hour."""
    if isinstance(query, dict) and TRUE & set(re.findall(r"\w+", str(query.get("follow")).lower())):
        return query | {"follow": "false"}
    return query
