import re
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.keys import hash_key, issue_key, visible_prefix, well_formed
from app.core.names import ModelName, ServiceName, new_id

SERVICE = TypeAdapter(ServiceName)
MODEL = TypeAdapter(ModelName)


@pytest.mark.parametrize("name", ["a", "A1", "模型", "模型-1_b", "a" * 64, "一" * 64, "鿿"])
def test_good_names(name: str) -> None:
    assert SERVICE.validate_python(name) == MODEL.validate_python(name) == name


@pytest.mark.parametrize(
    "name", ["", "1a", "-a", "_a", ".a", "a b", "a/b", "a\n", "\na", "a" * 65, "é", "a\u200b", "a'", "..", "名 称"]
)
def test_bad_names(name: str) -> None:
    for kind in (SERVICE, MODEL):
        with pytest.raises(ValidationError, match="1 to 64 Chinese or ASCII letters"):
            kind.validate_python(name)


def test_only_models_have_dots_in_their_names() -> None:
    assert MODEL.validate_python("Qwen2.5") == "Qwen2.5"
    with pytest.raises(ValidationError):
        SERVICE.validate_python("Qwen2.5")


@pytest.mark.parametrize("name", ["ep-20260131093000-x1y2z", "ep-20260131093000-", "ep-00000000000000-mine"])
def test_no_endpoint_is_named_like_another_ones_id(name: str) -> None:
    with pytest.raises(ValidationError, match="looks like an endpoint's ID"):
        SERVICE.validate_python(name)


@pytest.mark.parametrize("name", ["ep-1", "ep-2026-x", "my-ep-20260131093000-x1y2z", "ep-20260131093000"])
def test_other_names_may_begin_like_ids(name: str) -> None:
    assert SERVICE.validate_python(name) == name


def test_ids_tell_kind_and_time_and_differ() -> None:
    now = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    ids = {new_id("ep", now) for _ in range(100)}
    assert all(re.fullmatch(r"ep-20260131093000-[a-z0-9]{5}", identity) for identity in ids)
    assert len(ids) > 95


def test_an_issued_key_is_well_formed_and_new() -> None:
    keys = {issue_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(well_formed(key) for key in keys)


@pytest.mark.parametrize("change", ["", "x", "\n"])
def test_anything_else_is_not_a_key(change: str) -> None:
    key = issue_key()
    assert not well_formed((key + change) if change else key[:-1])
    assert not well_formed(key.replace("mu-", "sk-"))
    assert not well_formed("mu-" + "!" * 43)


def test_the_hash_hides_the_key_and_the_prefix_is_too_short_to_use() -> None:
    key = issue_key()
    assert key[3:] not in hash_key(key)
    assert hash_key(key) == hash_key(key) != hash_key(issue_key())
    assert len(visible_prefix(key)) == 9
    assert key.startswith(visible_prefix(key))
