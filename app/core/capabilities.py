"""What a version of a model is for (S3, chapter 4; S0, on custom models), and why not for the rest."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from app.core.findings import Facts
from app.core.specs import Precision

Use = Literal["tune", "compress", "deploy"]
USES: tuple[Use, ...] = ("tune", "compress", "deploy")
Origin = Literal["uploaded", "full", "lora"]
"""How a model came to be: brought, or tuned here in one of the ways."""
Way = Literal["unit", "per_token", "batch"]
"""How it can be called: by model units of its own, online and paid per token, or in batches paid per token."""
WAYS: tuple[Way, ...] = ("unit", "per_token", "batch")
_CALLED: dict[tuple[Origin, bool], tuple[Way, ...]] = {
    # (origin, quantized): the ways (S0)
    ("uploaded", False): ("unit",),
    ("uploaded", True): ("unit",),
    ("full", False): ("unit", "batch"),
    ("full", True): ("unit", "batch"),
    ("lora", False): ("unit",),
    ("lora", True): ("unit", "per_token", "batch"),
}
_NOT_CALLED: dict[Origin, str] = {
    "uploaded": "uploaded models are called by model units only, and not in batches",
    "full": "models of full fine-tuning are called online by model units only",
    "lora": "models of LoRA fine-tuning must be quantized before they are called per token or in batches",
}


FAILED_QUALITY = "it did not pass its quality gate; an endpoint with accept_quality: true serves it all the same"


class Offer(Protocol):
    """What the catalogue offers for a base model; see app/catalog/entries.py."""

    @property
    def base_model(self) -> str: ...

    @property
    def tune(self) -> Sequence[str]: ...

    @property
    def compress(self) -> Sequence[str]: ...

    @property
    def deploy(self) -> bool: ...


class Calls(BaseModel):
    """The ways in which a version can be called; each other one has a reason."""

    model_config = ConfigDict(frozen=True)

    ways: tuple[Way, ...]
    why_not: dict[Way, str]


def calls(origin: Origin, precision: Precision) -> Calls:
    """Of one version of a model."""
    ways = _CALLED[origin, precision != "BF16"]
    return Calls(ways=ways, why_not={way: _NOT_CALLED[origin] for way in WAYS if way not in ways})


class Supports(BaseModel):
    """Ways of tuning, compression strategies, and whether an endpoint can be made; a use without any has a reason."""

    model_config = ConfigDict(frozen=True)

    tune: tuple[str, ...] = ()
    compress: tuple[str, ...] = ()
    deploy: bool = False
    why_not: dict[Use, str] = {}

    def refusal(self, use: Use, kind: str | None = None) -> str | None:
        """Why the version is not for this use, or None; `kind` is a way of tuning or a strategy."""
        if use in self.why_not:
            return self.why_not[use]
        kinds = {"tune": self.tune, "compress": self.compress, "deploy": ()}[use]
        if kind is None or kind in kinds:
            return None
        return f"{kind} is not offered for it; offered: {', '.join(kinds) or 'none'}"


def supports(offer: Offer | None, precision: Precision, state: str, facts: Facts) -> Supports:
    """Of one version. `offer` is None for a base model that the catalogue does not know, `state` the version's."""
    if state not in ("healthy", "failed_quality"):
        return Supports(why_not=dict.fromkeys(USES, f"it is {state}"))
    why_not: dict[Use, str] = {}
    tune: Sequence[str] = ()
    compress: Sequence[str] = ()
    if precision != "BF16":
        why_not["tune"] = why_not["compress"] = (
            f"its weights are quantized ({precision}), so they are for deploying only"
        )
    elif offer is None:
        why_not["tune"] = why_not["compress"] = "its base model is not in the catalogue"
    else:
        tune, compress = offer.tune, offer.compress
        if not tune:
            why_not["tune"] = f"the catalogue offers no tuning for {offer.base_model}"
        if not compress:
            why_not["compress"] = f"the catalogue offers no compression for {offer.base_model}"
    if offer is not None and not offer.deploy:
        why_not["deploy"] = f"the catalogue does not offer {offer.base_model} for deployment"
    elif facts.chat_template is False:
        why_not["deploy"] = (
            "its tokenizer has no chat template, so it could not answer chat calls; upload it with one "
            "(chat_template.jinja, or chat_template in tokenizer_config.json)"
        )
    elif state == "failed_quality":
        why_not["deploy"] = FAILED_QUALITY
    return Supports(tune=tuple(tune), compress=tuple(compress), deploy="deploy" not in why_not, why_not=why_not)


def together(versions: Iterable[Supports]) -> Supports:
    """Of a model: what any of its versions is for; else the first one's reasons."""
    every = list(versions)
    tune = dict.fromkeys(kind for one in every for kind in one.tune)
    compress = dict.fromkeys(kind for one in every for kind in one.compress)
    deploy = any(one.deploy for one in every)
    met: dict[Use, bool] = {"tune": bool(tune), "compress": bool(compress), "deploy": deploy}
    why_not: dict[Use, str] = {
        use: next((one.why_not[use] for one in every if use in one.why_not), "it has no version")
        for use in USES
        if not met[use]
    }
    return Supports(tune=tuple(tune), compress=tuple(compress), deploy=deploy, why_not=why_not)
