"""What people may ask for when they bring weights."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.core.model_specs import ModelSpec, Source


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "m", "base_model": "b", **fields})


@pytest.mark.parametrize("name", ["通义千问-7b", "Llama.3_1-8B", "m", "模" * 64])
def test_names_may_be_chinese(name: str):
    assert spec(name=name).name == name


@pytest.mark.parametrize("name", ["", "1m", "-m", "m m", "m/x", "模" * 65, "é", "m\n"])
def test_other_names_are_refused(name: str):
    with pytest.raises(ValidationError):
        spec(name=name)


def test_a_description_has_a_hundred_characters():
    assert spec(description="字" * 100).description
    for description in ("字" * 101, "two\nlines", "nul\0", "\u202ebackwards"):
        with pytest.raises(ValidationError):
            spec(description=description)


def test_validation_is_on_and_nothing_is_quantized_by_default():
    assert spec().validation
    assert spec().precision == "BF16"
    assert not spec(validate=False).validation


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/模型/a b", "file:///models/x"])
def test_sources(uri: str):
    assert Source(uri=uri).uri == uri


@pytest.mark.parametrize(
    "uri",
    ["", "/models", "file://models", "file:///a/../b", "s3://", "s3:///x", "s3://B/x", "s3://bucket/../x", "s3://ab/\0",
     "http://host/x", "s3://bucket/./x", "gs://bucket/x", "s3://bucket/x?X-Amz-Signature=secret",
     "s3://bucket/x//y", "s3://bucket//x", "s3://bucket/x//"],
)  # fmt: skip
def test_other_sources_are_refused(uri: str):
    with pytest.raises(ValidationError):
        Source(uri=uri)


@pytest.mark.parametrize(
    "url", ["https://s3.example.com", "http://10.0.0.1:9000/", "http://[::1]:8333", "http://minio_1:9000"]
)
def test_servers(url: str):
    assert Source(uri="s3://bucket/x", endpoint_url=url).endpoint_url == url


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://user:secret@host", "host:9000", "http://", "http://host?token=secret", "http://host#x",
     "http://host/path", "http://ho st", "http://:80"],
)  # fmt: skip
def test_an_endpoint_is_an_address_without_credentials(url: str):
    with pytest.raises(ValidationError):
        Source(uri="s3://bucket/x", endpoint_url=url)
