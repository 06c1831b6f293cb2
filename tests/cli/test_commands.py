"""`modelunit` against a real control API: what people do with endpoints, keys and the rest, from a terminal."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.core import patience
from tests.cli.real_platform import Here
from tests.cli.runner import done, interrupt, modelunit, started, told
from tests.control_plane.platforms import until


def test_an_endpoint_from_the_first_wish_to_the_last(here: Here) -> None:
    made = modelunit("endpoints", "create", "demo", "--model", "Model-1", "--auto-stop", "4h", "--max-units", "2")
    assert made.exit_code == 0, made.stderr
    assert "healthy" in made.stderr
    endpoint = told("endpoints", "get", "demo")
    assert (endpoint["state"], endpoint["auto_stop_s"], endpoint["scale"]["max_units"]) == ("healthy", 14_400, 2)

    shown = done(
        "endpoints", "patch", "demo",
        "--description", "one", "--qps-per-unit", "2.5", "--max-queued", "7", "--clear", "auto_stop_s",
    )  # fmt: skip
    assert shown.startswith("in_place: ")
    endpoint = told("endpoints", "get", "demo")
    assert (endpoint["description"], endpoint["limits"]) == ("one", {"qps_per_unit": 2.5, "max_queued": 7})
    assert endpoint["auto_stop_s"] is None

    assert told("endpoints", "stop", "demo")["state"] == "stopped"
    assert told("endpoints", "start", "demo")["state"] == "healthy"

    assert "'restore' brings it back" in done("endpoints", "delete", "demo", typed="DELETE\n")
    until(lambda: told("endpoints", "list", "--deleted"))
    assert told("endpoints") == []
    assert told("endpoints", "restore", "demo")["id"] == endpoint["id"]
    done("endpoints", "delete", "demo", "--confirm", "DELETE")
    until(lambda: told("endpoints", "list", "--deleted"))
    done("endpoints", "delete", "demo", "--purge", "--confirm", "DELETE")
    assert told("endpoints", "list", "--deleted") == []


def test_a_delete_that_is_not_meant_changes_nothing(here: Here) -> None:
    done("endpoints", "create", "demo", "--model", "m-1")
    assert modelunit("endpoints", "delete", "demo", typed="yes\n").exit_code == 1
    assert modelunit("endpoints", "delete", "demo", typed="").exit_code == 1
    assert told("endpoints", "get", "demo")["state"] == "healthy"


def test_what_cannot_serve_ends_with_1_and_the_reason(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FAILED_FOR_S", 0.0)
    here.cluster.refuses = lambda endpoint_id: True
    result = modelunit("endpoints", "create", "demo", "--model", "m-1", "--json")
    assert result.exit_code == 1
    endpoint = json.loads(result.stdout)
    assert endpoint["state"] == "abnormal"
    assert f"abnormal: {endpoint['reason']}" in result.stderr
    assert told("endpoints", "create", "other", "--model", "m-1", "--no-wait")["state"] == "scheduling"


def test_lists_are_filtered(here: Here) -> None:
    for name in ("one", "two"):
        done("endpoints", "create", name, "--model", "m-1")
    done("endpoints", "stop", "two")
    assert [row["name"] for row in told("endpoints", "--state", "stopped")] == ["two"]
    assert [row["name"] for row in told("endpoints", "list", "--name", "one")] == ["one"]
    assert done("endpoints").count("m-1") == 2


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["endpoints", "get", "nobody"], 1, "there is no endpoint named nobody"),
        (["endpoints", "create", "demo", "--model", "unknown"], 1, "unknown"),
        (["endpoints", "create", "1st", "--model", "m-1"], 1, "name"),
        (["endpoints", "create", "demo"], 2, "--model"),
        (["endpoints", "create", "demo", "--model", "m-1", "--auto-stop", "soon"], 2, "--auto-stop"),
        (["endpoints", "create", "demo", "--model", "m-1", "--min-units", "few"], 2, "--min-units"),
        (["endpoints", "patch", "demo"], 2, "nothing is to be changed"),
        (["endpoints", "logs", "demo", "--follow", "--all"], 2, "--follow"),
        (["endpoints", "events", "demo", "--since", "yesterday"], 2, "--since"),
        (["keys", "create", "--expires", "tomorrow"], 2, "no time"),
        (["keys", "create", "--role", "king"], 1, "role"),
        (["keys", "create", "--concurrency", "0"], 1, "limits.concurrency is 0"),
        (["keys", "update", "key-none"], 2, "nothing is to be changed"),
        (["keys", "update", "key-none", "--clear", "concurrency"], 1, "key"),
        (["keys", "revoke", "key-none", "--confirm", "DELETE"], 1, "key"),
        (["keys", "revoke", "..", "--confirm", "DELETE"], 2, "neither"),
        (["members", "remove", "../api-keys/x", "--confirm", "DELETE"], 1, ""),
        (["members", "change", "m"], 2, "nothing is to be changed"),
        (["machine-types", "get", "none"], 1, "machine type"),
        (["endpoints", "list", "--state", "bogus"], 2, "'scheduling', 'healthy', 'sleeping'"),
        (["jobs", "list", "--state", "bogus"], 2, "'queued', 'running'"),
        (["jobs", "list", "--type", "bogus"], 2, "'upload'"),
    ],
)
def test_what_goes_wrong_is_said(here: Here, arguments: list[str], status: int, said: str) -> None:
    result = modelunit(*arguments)
    assert result.exit_code == status, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_the_wish_stands_after_ctrl_c(here: Here) -> None:
    here.cluster.deploy = lambda *_: None  # type: ignore[method-assign]  # nothing ever runs
    process = started("endpoints", "create", "demo", "--model", "m-1")
    assert process.stderr
    assert "scheduling" in process.stderr.readline()  # it waits
    status, out, err = interrupt(process)
    assert (status, out) == (1, "")
    endpoint = told("endpoints", "get", "demo")
    assert endpoint["state"] == "scheduling"
    assert err.splitlines()[-1].startswith(f"interrupted; the wish stands and {endpoint['id']} goes on")
    assert "Traceback" not in err


def test_keys(here: Here) -> None:
    done("endpoints", "create", "demo", "--model", "m-1")
    made = modelunit("keys", "create", "for the shop", "--endpoint", "demo", "--expires", "30d")
    assert made.exit_code == 0
    assert "not shown again" in made.stderr
    key = next(line.split()[1] for line in made.stdout.splitlines() if line.startswith("key "))
    (listed,) = [row for row in told("keys") if row["description"] == "for the shop"]
    assert (listed["role"], listed["endpoints"]) == ("inference", [told("endpoints", "get", "demo")["id"]])
    assert 29 < (datetime.fromisoformat(listed["expires_at"]) - datetime.now(UTC)).days + 1 <= 30

    def status() -> int:
        return httpx.get(f"{here.url}/platform/v1/events", headers={"authorization": f"Bearer {key}"}).status_code

    assert status() == 403
    assert listed["id"] in done("keys", "revoke", listed["id"], "--confirm", "DELETE")
    assert status() == 401


def test_limits_of_keys(here: Here) -> None:
    made = told("keys", "create", "--requests-per-minute", "60", "--concurrency", "4")
    assert made["limits"] == {"requests_per_minute": 60, "tokens_per_minute": None, "concurrency": 4}
    changed = told("keys", "update", made["id"], "--tokens-per-minute", "10000", "--clear", "concurrency")
    assert changed["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 10_000, "concurrency": None}
    late = modelunit("keys", "update", made["id"], "--concurrency", "1", "--if-match", made["etag"])
    assert (late.exit_code, "changed meanwhile" in late.stderr) == (1, True)
    assert '{"requests_per_minute": 60, "tokens_per_minute": 10000}' in done("keys")


def test_members(here: Here) -> None:
    done("members", "add", "ada", "--role", "developer", "--expires", "1d")
    assert told("members", "change", "ada", "--expires", "never", "--role", "inference")["expires_at"] is None
    assert told("keys", "create", "--member", "ada")["member_id"] == told("members", "get", "ada")["id"]
    done("members", "add", "bob", "--role", "developer")
    done("members", "remove", "ada", "--confirm", "DELETE")
    assert [member["name"] for member in told("members")] == ["bob"]
    done("members", "clear", "--confirm", "DELETE")
    assert told("members") == []


def test_workspaces_and_platforms_elsewhere(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    made = told("workspaces", "create", "shop")
    assert [row["name"] for row in told("workspaces")] == ["default", "shop"]
    again = told("workspaces", "issue-key", made["id"], "lost", "--revoke-others")
    (here.settings.home / "serve.json").unlink()
    monkeypatch.setenv("MODELUNIT_BASE_URL", here.url)
    assert "MODELUNIT_API_KEY" in modelunit("keys").stderr
    monkeypatch.setenv("MODELUNIT_API_KEY", again["key"])
    assert [row["id"] for row in told("keys")] == [again["id"]]
    assert modelunit("workspaces").exit_code == 1
    monkeypatch.delenv("MODELUNIT_BASE_URL")
    assert "no platform runs here" in modelunit("keys").stderr


def test_what_happened_and_who_did_it(here: Here) -> None:
    endpoint = told("endpoints", "create", "demo", "--model", "m-1")
    done("endpoints", "stop", "demo")
    kinds = [event["kind"] for event in told("events", "--subject", endpoint["id"])]
    assert kinds[0] == "created"
    assert "stopped" in kinds
    assert [event["kind"] for event in told("endpoints", "events", "demo", "--limit", "1000")] == kinds
    assert [event["kind"] for event in told("endpoints", "events", "demo", "--kind", "created", "--since", "1h")] == [
        "created"
    ]
    assert told("events", "--until", "1h") == []
    assert [entry["status"] for entry in told("audit", "--subject", endpoint["id"])] == [202, 202]
    assert len(told("audit", "--limit", "1")) == 1
    assert "POST /platform/v1/endpoints" in done("audit")


def test_machine_types(here: Here) -> None:
    assert [row["name"] for row in told("machine-types")] == ["cpu-small", "gpu-1"]
    assert "1 x GPU" in done("machine-types")
    assert told("machine-types", "get", "cpu-small", "--model", "m-1")["fit"]["ok"] is True
    assert "fits" in done("machine-types", "--model", "m-1")


def test_metrics_and_snippets(here: Here) -> None:
    done("endpoints", "create", "demo", "--model", "m-1")
    result = modelunit("endpoints", "metrics", "demo")
    assert result.exit_code == 0
    assert "nothing has been heard" in result.stderr
    assert set(told("endpoints", "metrics", "demo")) >= {"service", "resources"}
    code = done("endpoints", "snippet", "demo")
    assert told("endpoints", "get", "demo")["id"] in code
    compile(code, "snippet", "exec")
    assert done("endpoints", "snippet", "demo", "--client", "curl").splitlines()[1].startswith("curl ")
    assert modelunit("endpoints", "snippet", "demo", "--client", "telnet").exit_code == 1


def piece(text: str) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]})


def test_chat(here: Here) -> None:
    here.events = [
        json.dumps({"choices": [{"delta": {"role": "assistant"}}]}),
        piece("Par"),
        piece("is\x1b\a!"),
        "[DONE]",
    ]
    assert done("chat", "demo", "Capital of France?", "--system", "Be brief", "--max-tokens", "9") == "Paris!\n"
    assert here.asked[-1] == {
        "model": "demo", "max_tokens": 9, "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief"}, {"role": "user", "content": "Capital of France?"}
        ],
    }  # fmt: skip
    assert done("chat", "demo", typed="from a pipe") == "Paris!\n"
    assert here.asked[-1]["messages"] == [{"role": "user", "content": "from a pipe"}]
    assert told("chat", "demo", "Hello")["choices"][0]["message"]["content"] == "whole"


@pytest.mark.parametrize("end", [json.dumps({"error": {"message": "the unit was lost"}}), None])
def test_an_answer_that_breaks_off_is_a_failure(here: Here, end: str | None) -> None:
    here.events = [piece("Par"), *([end] if end else [])]
    result = modelunit("chat", "demo", "Hello")
    assert (result.exit_code, result.stdout) == (1, "Par\n")
    assert "the answer broke off" in result.stderr
    assert end is None or "the unit was lost" in result.stderr


def test_a_conversation_remembers(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.chat.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    here.events = [piece("Yes."), "[DONE]"]
    assert done("chat", "demo", typed="One?\n\nTwo?\n").count("Yes.") == 2
    assert [message["content"] for message in here.asked[-1]["messages"]] == ["One?", "Yes.", "Two?"]


@pytest.mark.parametrize(("words", "found"), [("modelunit endp", "endpoints"), ("modelunit endpoints cre", "create")])
def test_shells_complete_commands(monkeypatch: pytest.MonkeyPatch, words: str, found: str) -> None:
    environ = {"_MODELUNIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(app, [], env=environ, prog_name="modelunit")
    assert result.stdout.split() == [found]
