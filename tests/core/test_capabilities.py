"""What versions are for, by precision, base model, state and chat template."""

from dataclasses import dataclass
from typing import Any, get_args

import pytest

from app.core.capabilities import WAYS, Supports, calls, supports, together
from app.core.findings import Facts
from app.core.specs import Precision

CHATS, MUTE = Facts(chat_template=True), Facts(chat_template=False)
QUANTIZED = [precision for precision in get_args(Precision) if precision != "BF16"]


@dataclass(frozen=True)
class Offered:
    base_model: str = "Llama2-7B"
    tune: tuple[str, ...] = ("full", "lora")
    compress: tuple[str, ...] = ("AWQ-W4A16",)
    deploy: bool = True


def of(
    offer: Offered | None = Offered(), precision: Any = "BF16", state: str = "healthy", facts: Facts = CHATS
) -> Supports:
    return supports(offer, precision, state, facts)


def test_plain_weights_are_for_whatever_the_catalogue_offers():
    assert of() == Supports(tune=("full", "lora"), compress=("AWQ-W4A16",), deploy=True)


@pytest.mark.parametrize("precision", QUANTIZED)
def test_quantized_weights_are_for_deploying_only(precision: str):
    found = of(precision=precision)
    assert (found.tune, found.compress, found.deploy) == ((), (), True)
    assert found.why_not.keys() == {"tune", "compress"}
    assert precision in (found.refusal("tune", "lora") or "")
    assert "deploying only" in (found.refusal("compress", "AWQ-W4A16") or "")
    assert found.refusal("deploy") is None


def test_what_the_catalogue_does_not_offer_is_said():
    found = of(Offered(tune=(), compress=(), deploy=False))
    assert (found.tune, found.compress, found.deploy) == ((), (), False)
    assert all("Llama2-7B" in found.why_not[use] for use in ("tune", "compress", "deploy"))


def test_an_unknown_base_model_can_be_deployed_and_nothing_else():
    found = of(None, facts=Facts())
    assert (found.tune, found.compress, found.deploy) == ((), (), True)
    assert found.refusal("tune") == "its base model is not in the catalogue"


def test_without_a_chat_template_weights_are_for_tuning_and_not_for_chat():
    found = of(facts=MUTE)
    assert found.tune == ("full", "lora")
    assert not found.deploy
    assert "chat template" in (found.refusal("deploy") or "")


@pytest.mark.parametrize("state", ["creating", "failed"])
def test_what_is_not_healthy_is_for_nothing_and_says_so(state: str):
    found = of(state=state)
    assert (found.tune, found.compress, found.deploy) == ((), (), False)
    assert {found.refusal(use) for use in ("tune", "compress", "deploy")} == {f"it is {state}"}


def test_what_lost_too_much_in_compression_is_deployed_by_those_alone_who_say_so():
    found = of(precision="AWQ-W4A16", state="failed_quality")
    assert (found.tune, found.compress, found.deploy) == ((), (), False)
    assert "accept_quality" in (found.refusal("deploy") or "")


def test_a_kind_that_is_not_offered_is_refused_with_those_that_are():
    assert of().refusal("tune", "lora") is None
    assert of().refusal("compress", "SmoothQuant-W8A8") == (
        "SmoothQuant-W8A8 is not offered for it; offered: AWQ-W4A16"
    )


def test_a_model_is_for_what_any_of_its_versions_is_for():
    assert together([of(precision="AWQ-W4A16"), of()]) == of()
    assert together([of(), of(state="creating")]) == of()
    assert together([of(precision="W4A8")]) == of(precision="W4A8")
    assert together([]).refusal("deploy") == "it has no version"


@pytest.mark.parametrize(
    ("origin", "precision", "ways"),
    [
        ("uploaded", "BF16", ("unit",)),
        ("uploaded", "W8A8_FP8", ("unit",)),
        ("full", "BF16", ("unit", "batch")),
        ("lora", "BF16", ("unit",)),
        ("lora", "AWQ-W4A16", ("unit", "per_token", "batch")),
    ],
)
def test_how_models_are_called_depends_on_how_they_came_to_be(origin: Any, precision: Any, ways: Any) -> None:
    found = calls(origin, precision)
    assert found.ways == ways
    assert set(found.why_not) == set(WAYS) - set(ways)
