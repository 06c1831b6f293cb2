from pathlib import Path

import pytest

from app.core.errors import Forbidden
from app.core.model_specs import Source
from app.core.source_rules import check_source, check_target, split
from app.settings import Settings

SETTINGS = Settings(
    object_store="s3://platform/objects",
    s3_endpoint_url="http://ours:9000",
    file_roots=(Path("/data/models"), Path("/srv")),
    source_endpoints=("https://theirs",),
    source_profiles=("them",),
    write_roots=("s3://bucket/out/", "s3://platform", "file:///srv/out"),
)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket/a/b/", ("bucket", "a/b")),
        ("file:///", ("", "")),
        ("file:///a/b/", ("", "a/b")),
        ("file:////a//b", ("", "a/b")),
    ],
)
def test_addresses_are_taken_apart(uri: str, parts: tuple[str, str]) -> None:
    assert split(uri) == parts


@pytest.mark.parametrize(
    "fields",
    [
        {"uri": "file:///data/models"},
        {"uri": "file:///data/models/qwen/"},
        {"uri": "file:///srv/x"},
        {"uri": "s3://bucket/qwen"},
        {"uri": "s3://platform/elsewhere"},
        {"uri": "s3://platform/objects/mine"},
        {"uri": "s3://platform/objects/models-of-mine"},
        {"uri": "s3://bucket/qwen", "endpoint_url": "http://ours:9000"},
        {"uri": "s3://bucket/qwen", "endpoint_url": "https://theirs/", "profile": "them"},
        {"uri": "s3://bucket/qwen", "profile": "them"},
    ],
)
def test_what_any_key_may_name(fields: dict[str, str]) -> None:
    check_source(Source.model_validate(fields), admin=False, settings=SETTINGS)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"uri": "file:///"}, "source.uri"),
        ({"uri": "file:///data"}, "source.uri"),
        ({"uri": "file:///data/models-2"}, "source.uri"),
        ({"uri": "file:///etc"}, "source.uri"),
        ({"uri": "s3://platform"}, "source.uri"),
        ({"uri": "s3://platform/objects"}, "source.uri"),
        ({"uri": "s3://platform/objects/models"}, "source.uri"),
        ({"uri": "s3://platform/objects/models/m-1/BF16"}, "source.uri"),
        ({"uri": "s3://platform/objects/jobs/job-1/"}, "source.uri"),
        ({"uri": "s3://bucket/qwen", "endpoint_url": "http://169.254.169.254"}, "source.endpoint_url"),
        ({"uri": "s3://bucket/qwen", "endpoint_url": "https://theirs.example"}, "source.endpoint_url"),
        ({"uri": "s3://platform/objects/logs/ep-1"}, "source.uri"),
        ({"uri": "s3://bucket/qwen", "profile": "default"}, "source.profile"),
        ({"uri": "s3://bucket/qwen", "endpoint_url": "https://theirs", "profile": "default"}, "source.profile"),
    ],
)
def test_what_only_an_admin_s_key_may_name(fields: dict[str, str], param: str) -> None:
    source = Source.model_validate(fields)
    with pytest.raises(Forbidden) as refused:
        check_source(source, admin=False, settings=SETTINGS)
    assert refused.value.param == param
    assert "/" not in refused.value.message.replace("file://", "").replace("s3://", "")
    check_source(source, admin=True, settings=SETTINGS)


def test_without_a_word_of_the_operator_no_folder_may_be_named() -> None:
    with pytest.raises(Forbidden):
        check_source(Source(uri="file:///data/models"), admin=False, settings=Settings(home=Path("/data")))


def test_a_store_of_files_is_everybody_s_too() -> None:
    settings = Settings(home=Path("/data"), file_roots=(Path("/data"),))
    check_source(Source(uri="file:///data/mine"), admin=False, settings=settings)
    check_source(Source(uri="file:///data/objects/mine"), admin=False, settings=settings)
    for folder in ("", "objects", "objects/models", "objects/models/m-1/BF16"):
        with pytest.raises(Forbidden):
            check_source(Source(uri=f"file:///data/{folder}"), admin=False, settings=settings)


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://bucket/out/ws-1", True),
        ("s3://bucket/out/ws-1/taught/", True),
        ("s3://platform/ws-1/taught", True),
        ("file:///srv/out/ws-1/taught", True),
        ("file:////srv//out/ws-1", True),
        ("s3://bucket/out", False),
        ("s3://bucket/out/ws-2", False),
        ("s3://bucket/out/ws-10", False),
        ("s3://bucket/ws-1", False),
        ("s3://platform", False),
        ("s3://platform/objects/models", False),
        ("file:///srv", False),
        ("file:///srv/out", False),
        ("file:///data/models/ws-1", False),
    ],
)
def test_a_workspace_has_files_written_to_its_own_folder_only(uri: str, allowed: bool) -> None:
    check_target(uri, admin=True, workspace="default", settings=SETTINGS, field="output")
    if allowed:
        check_target(uri, admin=False, workspace="ws-1", settings=SETTINGS, field="output")
        return
    with pytest.raises(Forbidden) as refused:
        check_target(uri, admin=False, workspace="ws-1", settings=SETTINGS, field="output")
    assert refused.value.param == "output.uri"


def test_a_refused_target_tells_where_one_may_be() -> None:
    with pytest.raises(Forbidden, match="is not in s3://bucket/out/ws-1 or s3://platform/ws-1 or file"):
        check_target("s3://other/a", admin=False, workspace="ws-1", settings=SETTINGS, field="output")
    with pytest.raises(Forbidden, match="the operator allows none"):
        check_target("s3://other/a", admin=False, workspace="ws-1", settings=Settings(), field="output")
