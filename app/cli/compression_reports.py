"""What compression costs and takes, as lines."""

from typing import Any

from app.cli.api import Api, given
from app.cli.terminal import output, show

_MIB = 1 << 20


def show_compression_estimate(api: Api, model: str, precision: str, machine_type: str | None, as_json: bool) -> None:
    """How long a compression would take."""
    wish = {"type": "quantize", "model": model, "precision": precision} | given(machine_type=machine_type)
    found = api.call("POST", "jobs:estimate", json=wish)
    if as_json:
        show(found, True)
        return
    what = f"{precision} of {found['base_model']} on {found['machine_type']}"
    for span in (found["measured"], found["documented"]):
        if span:
            low, high = span["hours"]
            output.print(f"{what}: {low:.2f} to {high:.2f} hours ({span['source']})")
    if found["hours"] is None:
        output.print(f"{what}: nobody can tell; no such job has completed here, and the product's table has none")


def show_versions(versions: list[dict[str, Any]], as_json: bool) -> None:
    """A model's versions: what each has cost, and where it can run."""
    if as_json:
        show(versions, True)
        return
    rows = [version | {"quality": _in_brief(version), "runs_on": _places(version)} for version in versions]
    show(rows, False, "id", "precision", "state", "quality", "runs_on", "digest", "reason")


def show_card(version: dict[str, Any], as_json: bool) -> None:
    """A version's quality card."""
    if as_json:
        show(version, True)
        return
    card = version["quality"]
    lines: dict[str, Any] = {"version": version["id"], "state": version["state"]}
    if card is None:
        lines["quality"] = "not measured: it was not made by compression here, or is being made"
    else:
        lines |= _card_lines(card)
    for number, failure in enumerate(version["quality_failures"], 1):
        lines[f"failure {number}"] = failure
    if version["recipe"]:
        lines |= {
            f"recipe: {name}": value
            for name, value in version["recipe"].items()
            if name != "origins" and value is not None
        }
    for place in version["runs_on"]:
        lines[f"on {place['machine_type']}"] = "can run" if place["servable"] else place["reason"]
    show(lines, False)


def _card_lines(card: dict[str, Any]) -> dict[str, Any]:
    """Each pair of figures on a line of its own: the original's, then the version's."""
    lines = {
        "perplexity": f"{card['perplexity_before']:.4g} -> {card['perplexity_after']:.4g} ({_rise(card):+.2%})",
        "KL of next tokens": f"{card['kl_mean']:.3g} nats on average, {card['kl_p99']:.3g} at the 99th percentile",
        "greedy agreement": f"{card['greedy_agreement']:.1%} of {card['greedy_tokens']} tokens",
        "size": f"{card['size_before_bytes'] / _MIB:.0f} -> {card['size_after_bytes'] / _MIB:.0f} MiB",
        "load": _pair(card, "load_s", "s"),
        "speed": f"{_pair(card, 'tokens_per_s', 'tokens/s')}, concurrency {card['concurrency']}",
    }
    for probe in card["probes"]:
        lines[f"probe {probe['name']}"] = f"{probe['before']} -> {probe['after']} of {probe['of']}"
    lines["held-out text"] = f"{card['held_out_tokens']} tokens"
    lines["where"] = card["where"]
    return lines


def _pair(card: dict[str, Any], name: str, unit: str) -> str:
    before, after = (card[f"{name}_{when}"] for when in ("before", "after"))
    return "not measured" if before is None or after is None else f"{before:.3g} -> {after:.3g} {unit}"


def _rise(card: dict[str, Any]) -> float:
    before = float(card["perplexity_before"])
    return float(card["perplexity_after"]) / before - 1 if before else 0.0


def _in_brief(version: dict[str, Any]) -> str:
    card = version["quality"]
    return f"perplexity {_rise(card):+.1%}, KL {card['kl_mean']:.2g}" if card else ""


def _places(version: dict[str, Any]) -> str:
    return ", ".join(place["machine_type"] for place in version["runs_on"] if place["servable"]) or "nowhere"
