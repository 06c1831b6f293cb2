"""What keys allow; how they look is in test_names_and_keys.py."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.errors import Unauthorized
from app.core.keys import (
    as_far_as,
    bearer_hash,
    bounded,
    covers,
    hash_key,
    is_admin,
    is_live,
    is_platform_admin,
)
from app.core.records import ApiKey, Member, Role

NOW = datetime(2026, 2, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
KEY = "mu-" + "k" * 43
"""The same in every process: what tests are called must not change."""


def key(**fields: Any) -> ApiKey:
    made = {"id": "key-1", "created_at": NOW, "workspace": "default", "role": "admin", "hash": "h", "prefix": "mu-"}
    return ApiKey(**(made | fields))


def member(role: Role = "admin", expires_at: datetime | None = None) -> Member:
    return Member(id="mem-1", created_at=NOW, workspace="default", name="ann", role=role, expires_at=expires_at)


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_a_bearer_key_is_hashed(header: str) -> None:
    assert bearer_hash(header) == hash_key(KEY)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY])
def test_without_a_bearer_key_it_is_missing(header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        bearer_hash(header)
    assert caught.value.body()["error"]["code"] == "missing_api_key"  # type: ignore[index]


@pytest.mark.parametrize("given", ["mu-short", KEY + "x", KEY[:-1], "mu-" + "é" * 43, f"{KEY} {KEY}"])
def test_a_malformed_key_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(Unauthorized, match="not valid") as caught:
        bearer_hash(f"Bearer {given}")
    assert given not in str(caught.value.body())


def test_a_key_lives_until_the_moment_it_ends() -> None:
    assert is_live(key(), NOW)
    assert is_live(key(expires_at=LATER), LATER - timedelta(microseconds=1))
    assert not is_live(key(expires_at=LATER), LATER)


def test_a_key_for_some_endpoints_covers_these() -> None:
    assert covers(key(), "ep-1")
    assert covers(key(endpoints=("ep-1",)), "ep-1")
    assert not covers(key(endpoints=("ep-1",)), "ep-2")
    assert not covers(key(endpoints=()), "ep-1")  # not the same as no list


def test_admins_are_those_of_everything() -> None:
    assert is_admin(key())
    assert is_platform_admin(key())
    assert is_admin(key(workspace="ws-1"))
    assert not is_platform_admin(key(workspace="ws-1"))
    for lesser in (key(role="developer"), key(endpoints=("ep-1",))):
        assert not is_admin(lesser)
        assert not is_platform_admin(lesser)


@pytest.mark.parametrize(
    ("own", "members", "bounded"),
    [
        ("admin", "inference", "inference"),
        ("developer", "admin", "developer"),
        ("inference", "developer", "inference"),
        ("admin", "admin", "admin"),
    ],
)
def test_a_members_key_has_the_lower_role(own: Role, members: Role, bounded: Role) -> None:
    assert as_far_as(key(role=own, member_id="mem-1"), member(members)).role == bounded


@pytest.mark.parametrize(
    ("own", "members", "bounded"),
    [(None, None, None), (None, LATER, LATER), (LATER, None, LATER), (LATER, NOW, NOW), (NOW, LATER, NOW)],
)
def test_a_members_key_ends_with_what_ends_first(
    own: datetime | None, members: datetime | None, bounded: datetime | None
) -> None:
    assert as_far_as(key(expires_at=own, member_id="mem-1"), member(expires_at=members)).expires_at == bounded


def test_a_members_key_ends_with_its_member_and_no_other_does() -> None:
    assert not is_live(as_far_as(key(member_id="mem-1"), None), NOW)
    assert as_far_as(key(), None) == key()


def test_keys_are_bounded_by_their_own_member_each() -> None:
    keys = [key(), key(member_id="mem-1"), key(member_id="mem-2")]
    free, owned, left = bounded(keys, [member("developer", LATER)])
    assert free == keys[0]
    assert (owned.role, owned.expires_at) == ("developer", LATER)
    assert not is_live(left, NOW)
