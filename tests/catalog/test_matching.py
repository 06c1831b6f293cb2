"""Which base model a config.json belongs to."""

from typing import Any

import pytest

from app.catalog.matching import matching, possible
from tests.catalog.shipped import CATALOG


def names(config: dict[str, Any]) -> list[str]:
    return [entry.base_model for entry in matching(CATALOG.entries, config)]


def test_every_entry_with_a_structure_of_its_own_is_found_by_it():
    found = 0
    for entry in CATALOG.entries:
        if entry.structure:
            config = {"architectures": [entry.architectures[0]], **entry.structure}
            assert entry.base_model in names(config)
            assert entry.base_model in names(
                {"architectures": [entry.architectures[0]], "text_config": entry.structure}
            )
            found += 1
    assert found > 20


def test_another_shape_is_another_model():
    entry = CATALOG.find("SmolLM2-135M-Instruct")
    assert entry is not None
    config = {"architectures": [entry.architectures[0]], **entry.structure}
    assert names(config) == [entry.base_model]
    assert entry.base_model not in names(config | {"hidden_size": 577})
    assert entry.base_model not in names(config | {"architectures": ["Other"]})


def test_defaults_contradict_nothing_but_nothing_proves_nothing():
    entry = CATALOG.find("SmolLM2-135M-Instruct")
    assert entry is not None
    config = {"architectures": [entry.architectures[0]], **entry.structure}
    del config["vocab_size"]
    assert entry.base_model in names(config)
    assert entry.base_model not in names({"architectures": [entry.architectures[0]]})


def test_what_has_no_known_shape_is_only_possible():
    unshaped = next(entry for entry in CATALOG.entries if not entry.structure)
    config = {"architectures": [unshaped.architectures[0]], "hidden_size": 1}
    assert unshaped.base_model not in names(config)
    assert unshaped in possible(CATALOG.entries, config)
    assert all(not entry.structure for entry in possible(CATALOG.entries, config))


@pytest.mark.parametrize(
    "config", [{}, {"architectures": []}, {"architectures": "LlamaForCausalLM"}, {"architectures": [1]}]
)
def test_nonsense_matches_nothing(config: dict[str, Any]):
    assert names(config) == []
