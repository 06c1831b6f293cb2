"""What generation_config.json and the tokenizer's config must agree with."""

from typing import Any

from app.core.findings import Finding, finding
from app.weights.finding_list import FindingList
from app.weights.folder_contents import GENERATION_CONFIG, TOKENIZER_CONFIG, Contents

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "temperature": (None, 1.0),
    "top_p": (None, 1.0),
    "top_k": (None, 50),
    "min_p": (None,),
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
}
"""The values that transformers, too, takes for not set: it writes them into files of its own accord."""


def check_generation(config: dict[str, Any], findings: FindingList) -> None:
    """Sampling parameters want do_sample (S3, table 5-2)."""
    if config.get("do_sample") is True:
        return
    sampling = {
        name: config[name] for name, neutral in _NEUTRAL.items() if name in config and config[name] not in neutral
    }
    if sampling:
        findings.add(
            "do_sample_inconsistent",
            "Set do_sample to true, or remove the sampling parameters.",
            file=GENERATION_CONFIG,
            found=f"do_sample {config.get('do_sample')}, {', '.join(f'{k} {v}' for k, v in sampling.items())}",
            expected="do_sample true",
        )


def check_chat_template(contents: Contents, tokenizer_config: dict[str, Any], findings: FindingList) -> None:
    """A chat template in one of the places where transformers looks, for a tokenizer that cannot be asked."""
    files = ("chat_template.jinja", "chat_template.json")
    if not tokenizer_config.get("chat_template") and not any(name in contents.top for name in files):
        findings.extend([missing_template()])


def missing_template() -> Finding:
    """A warning: base models have none and are there to be tuned. What cannot chat is not deployed, and says so."""
    return finding(
        "chat_template_missing",
        "To chat with it, add chat_template.jinja, or the field chat_template in tokenizer_config.json, as the base "
        "model's chat variant has it. Without one it can be tuned and compressed, but not deployed.",
        file=TOKENIZER_CONFIG,
        found="no chat template",
        expected="a chat template",
        warning=True,
    )
