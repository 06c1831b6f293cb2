"""`endpoints scaling --what-if`: units and waiting as other rules would have had them, beside those as they are."""

import json
from datetime import datetime, timedelta
from typing import Any

import typer
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from app.cli.api import Api, Rows, segment
from app.cli.terminal import errors, output, show
from app.cli.times import seconds
from app.core.field_errors import field_error
from app.core.scale_rules import rules_of
from app.core.scaling import Rules
from app.core.specs import EndpointSpec, MachineType
from app.core.steps import scale_problem
from app.core.what_if import MINUTE_S, ImaginedMinute, RecordedMinute, recorded_minute, what_if

START_S = 30.0
"""From the decision to a unit that runs, unless `start` says otherwise."""
_FIELDS = {
    "min": "min_units",
    "max": "max_units",
    "tier": "tier",
    "concurrency": "target_concurrency",
    "idle": "idle_to_zero_s",
    "down": "down_after_s",
}
_SPANS = ("idle", "down", "start")
_COLUMNS = ("minute", "requests", "load", "units_recorded", "units_now", "waiting_now", "units", "waiting")


def imagine(api: Api, path: str, changes: list[str], minutes: int, as_json: bool) -> None:
    """Print it. Raises BadParameter for changes that no endpoint could have."""
    fields = _changes(changes)
    start_s = fields.pop("start", START_S)
    endpoint = api.call("GET", path)
    machine = _machine(api.call("GET", f"machine-types/{segment(endpoint['machine_type'])}"))
    scale = endpoint["scale"]
    rules = [_rules(endpoint, wanted, machine) for wanted in (scale, _merged(scale, fields))]
    figures = api.call("GET", f"{path}/metrics", params={"minutes": minutes})
    if not figures["service"]:
        errors.print(f"nothing has been heard of it in the last {minutes} minutes")
    rows = _every_minute(figures["service"])
    recorded = [recorded_minute(row) for row in rows]
    units = int(rows[0].get("units") or 0) if rows else 0
    now, other = (what_if(recorded, each, units, start_s) for each in rules)
    told = [_row(*four) for four in zip(rows, recorded, now, other, strict=True)]
    sums = {"recorded_unit_h": _hours(sum(row["unit_s"] for row in figures["resources"]))}
    sums |= {f"now_{name}": value for name, value in _sums(now).items()} | _sums(other)
    if as_json:
        show({"minutes": told, "sum": sums}, True)
        return
    show(told, False, *_COLUMNS)
    output.print(
        f"\nrecorded: {sums['recorded_unit_h']} unit hours\n"
        f"with the rules as they are: {sums['now_unit_h']} unit hours, {sums['now_waiting_s']} s waited in sum\n"
        f"with these rules: {sums['unit_h']} unit hours, {sums['waiting_s']} s waited in sum"
    )


def _changes(typed: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for one in typed:
        name, _, text = one.partition("=")
        if not text or name not in (*_FIELDS, "start"):
            raise typer.BadParameter(
                f"{one!r} is no change; write min=, max=, tier=, concurrency=, idle=, down=, start="
            )
        if name == "tier":
            value: Any = text
        elif name in _SPANS and not text.isdigit():
            value = seconds(text)
        else:
            try:
                value = int(text)
            except ValueError:
                raise typer.BadParameter(f"{one!r} needs a whole number") from None
        fields[_FIELDS.get(name, name)] = value
    return fields


def _merged(scale: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """As it would be set over the API, and without what the changes make meaningless."""
    merged = scale | changes
    if merged["min_units"] and "idle_to_zero_s" not in changes:
        merged["idle_to_zero_s"] = None
    if "tier" in changes and "target_concurrency" not in changes:
        merged["target_concurrency"] = None
    if "max_units" not in changes:
        merged["max_units"] = max(merged["min_units"], merged["max_units"])
    return merged


def _rules(endpoint: dict[str, Any], scale: dict[str, Any], machine: MachineType) -> Rules:
    document = {"name": "imagined", "model": "-", "engine": endpoint["engine"], "scale": scale}
    try:
        spec = EndpointSpec.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise typer.BadParameter(field_error(error).message) from None
    if problem := scale_problem(spec.scale, machine, spec.engine):
        raise typer.BadParameter(problem[1])
    return rules_of(spec.scale, machine, spec.engine.max_num_seqs)


def _machine(shown: dict[str, Any]) -> MachineType:
    known = {name: shown[name] for name in MachineType.model_fields if name in shown}  # quotas are not shown
    return MachineType.model_validate_json(json.dumps(known))


def _every_minute(found: Rows) -> Rows:
    """With those in between of which nothing was heard: nobody called, and no unit ran."""
    known = {datetime.fromisoformat(row["minute"]): row for row in found}
    rows: Rows = []
    for moment in sorted(known):
        while rows and (after := rows[-1]["at"] + timedelta(minutes=1)) < moment:
            rows.append({"at": after, "minute": to_jsonable_python(after)})
        rows.append(known[moment] | {"at": moment})
    return rows


def _row(row: dict[str, Any], recorded: RecordedMinute, now: ImaginedMinute, other: ImaginedMinute) -> dict[str, Any]:
    return {
        "minute": row["minute"],
        "requests": row.get("requests") or 0,
        "load": round(recorded.load, 2),
        "units_recorded": row.get("units") or 0,
        "units_now": round(now.units, 1),
        "waiting_now": round(now.waiting, 1),
        "units": round(other.units, 1),
        "waiting": round(other.waiting, 1),
    }


def _sums(minutes: list[ImaginedMinute]) -> dict[str, float]:
    waited_s = round(sum(minute.waiting for minute in minutes) * MINUTE_S)
    return {"unit_h": _hours(sum(minute.units for minute in minutes) * MINUTE_S), "waiting_s": waited_s}


def _hours(time_s: float) -> float:
    return round(time_s / 3600, 2)
