"""`modelunit jobs create quantize`, `models quantize` and `models card`: smaller, faster versions, and their cost."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api import Api, Refused, fields_of, given, segment, source_uri
from app.cli.compression_reports import show_card
from app.cli.findings import show_outcome
from app.cli.terminal import AsJson, errors, show, show_done
from app.cli.waiting import wait_for_endpoint, wait_for_job

Precision = Annotated[str, typer.Option(help="SmoothQuant-W8A8, AWQ-W4A16, W8A8_FP8 or W4A8.")]
Strength = Annotated[float | None, typer.Option(help="Of SmoothQuant-W8A8 alone: 0 to 1; 0.5 unless told.")]
Calibration = Annotated[
    str | None, typer.Option(help="Conversations: s3://BUCKET/FILE, file:///FILE or a file here; else the shipped set.")
]
Samples = Annotated[int | None, typer.Option(min=1, max=4096, help="Of calibration; 128 unless told.")]
Length = Annotated[int | None, typer.Option(min=16, max=32768, help="Tokens of one sample; 512 unless told.")]
MachineName = Annotated[str | None, typer.Option("--machine-type")]
AutoStop = Annotated[int | None, typer.Option(help="Seconds from when it begins to run.")]
SpecFile = Annotated[Path | None, typer.Option(help="A JSON file with any of the job's fields; options go before it.")]


def quantize_job_command(
    spec: SpecFile = None,
    name: Annotated[str | None, typer.Option(help="Of the job; one that tells what it does unless told.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to compress, by ID or name.")] = None,
    precision: Annotated[str | None, typer.Option(help="SmoothQuant-W8A8, AWQ-W4A16, W8A8_FP8 or W4A8.")] = None,
    output_model_name: Annotated[
        str | None, typer.Option("--output", help="Make a new model of this name, instead of a version of the model.")
    ] = None,
    migration_strength: Strength = None,
    calibration: Calibration = None,
    calibration_samples: Samples = None,
    calibration_length: Length = None,
    machine_type: MachineName = None,
    auto_stop_s: AutoStop = None,
    wait: Annotated[bool, typer.Option(help="Until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compress a model: the result is a version of it, or a new model. Ctrl-C leaves the job going."""
    body = {"type": "quantize", **fields_of(spec)}
    body |= given(name=name, model=model, precision=precision, output_model_name=output_model_name)
    body |= _wishes(migration_strength, calibration, calibration_samples, calibration_length, machine_type, auto_stop_s)
    if {"model", "precision"} <= body.keys():
        body.setdefault("name", f"{body['precision']}-{body['model']}".replace(".", "-")[:64])
    api = Api()
    job = api.call("POST", "jobs", json=body)
    if wait:
        show_outcome(wait_for_job(api, job), as_json)
    else:
        show_done(f"{job['id']} is {job['state']}", job, as_json)


def quantize_command(
    model: Annotated[str, typer.Argument(help="A model's ID or name.")],
    precision: Precision,
    spec: SpecFile = None,
    migration_strength: Strength = None,
    calibration: Calibration = None,
    calibration_samples: Samples = None,
    calibration_length: Length = None,
    machine_type: MachineName = None,
    auto_stop_s: AutoStop = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Serve the version by an endpoint of this name, as soon as it is made.")
    ] = None,
    accept_quality: Annotated[
        bool, typer.Option("--accept-quality", help="Of that endpoint: whatever the version has cost in quality.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Until it is made, and serves where an endpoint is named.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make a version of a model in another precision, and with --endpoint serve it.

    Ends with 1 when the version fails, its quality gate included, or does not serve. Ctrl-C leaves all of it going.
    """
    api, path = Api(), f"models/{segment(model)}/versions"
    body = {**fields_of(spec), "precision": precision}
    body |= _wishes(migration_strength, calibration, calibration_samples, calibration_length, machine_type, auto_stop_s)
    version = api.call("POST", path, json=body)
    served = _endpoint(api, version, endpoint, accept_quality) if endpoint else None
    if not wait:
        told = f"{version['id']} is made by {version['job_id']}"
        show_done(f"{told}, then served by {served['id']}" if served else told, served or version, as_json)
        return
    job = wait_for_job(api, api.call("GET", f"jobs/{version['job_id']}"))
    if job["state"] != "completed":
        if served:
            errors.print(f"endpoint {served['id']} waits for it: resume the job, or delete the endpoint")
        show_outcome(job, as_json)
        raise typer.Exit(1)
    version = api.call("GET", f"{path}/{segment(precision)}")
    fails = version["state"] != "healthy"
    if served is None:
        show_card(version, as_json)
        raise typer.Exit(1 if fails else 0)
    if not as_json:
        show_card(version, False)
    if fails and not accept_quality:
        errors.print(
            f"it is not served: 'modelunit endpoints patch {served['name']} --accept-quality' serves it all the same"
        )
        show(served, as_json)
        raise typer.Exit(1)
    served, serves = wait_for_endpoint(api, served["id"])
    show(served, as_json)
    if not serves:
        raise typer.Exit(1)


def card_command(
    model: Annotated[str, typer.Argument(help="A model's ID or name.")],
    precision: Precision,
    as_json: AsJson = False,
) -> None:
    """What a version has cost in quality and what it has gained, how it was made, and where it can run."""
    show_card(Api().call("GET", f"models/{segment(model)}/versions/{segment(precision)}"), as_json)


def _endpoint(api: Api, version: dict[str, Any], name: str, accept_quality: bool) -> dict[str, Any]:
    """The endpoint that waits for the version. Where it is refused the version's job is stopped."""
    body = {"name": name, "model": version["model_id"], "precision": version["precision"]}
    if accept_quality:
        body["accept_quality"] = True
    try:
        made: dict[str, Any] = api.call("POST", "endpoints", json=body)
    except Refused:
        api.call("POST", f"jobs/{version['job_id']}:stop")
        errors.print(f"{version['job_id']} is stopped: the endpoint that was to serve its version is refused")
        raise
    return made


def _wishes(
    strength: float | None,
    calibration: str | None,
    samples: int | None,
    length: int | None,
    machine_type: str | None,
    auto_stop_s: int | None,
) -> dict[str, Any]:
    fields = given(
        migration_strength=strength, calibration_samples=samples, calibration_length=length, machine_type=machine_type,
        auto_stop_s=auto_stop_s,
    )  # fmt: skip
    return fields | ({"calibration": {"uri": source_uri(calibration)}} if calibration is not None else {})
