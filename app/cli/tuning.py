"""`modelunit jobs create finetune`, `estimate`, `plot`, `resume` and `export`: models that are made of others."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.api import Api, fields_of, given, segment, source_uri
from app.cli.compression_reports import show_compression_estimate
from app.cli.findings import show_outcome
from app.cli.terminal import AsJson, output, show, show_done
from app.cli.tuning_plot import svg
from app.cli.waiting import wait_for_job
from app.local import StartFailed

Method = Annotated[Literal["lora", "full"] | None, typer.Option(help="lora unless told otherwise.")]
Iterations = Annotated[int | None, typer.Option(min=0, max=100_000, help="Of 32 rows each; 1000 unless told.")]
Epochs = Annotated[float | None, typer.Option(help="Instead of iterations: how often each row is trained on.")]
MachineName = Annotated[str | None, typer.Option("--machine-type")]
Instances = Annotated[int | None, typer.Option(min=1, max=64)]


def finetune_command(
    spec: Annotated[
        Path | None, typer.Option(help="A JSON file with any of the job's fields; options go before it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the job; the output model's unless told.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to begin with, by ID or name.")] = None,
    dataset: Annotated[str | None, typer.Option(help="s3://BUCKET/FILE, file:///FILE or a file here.")] = None,
    output_model_name: Annotated[str | None, typer.Option("--output", help="What the new model is called.")] = None,
    method: Method = None,
    iterations: Iterations = None,
    epochs: Epochs = None,
    learning_rate: Annotated[float | None, typer.Option(help="0 to 0.1; 0.00002 unless told.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens at which samples are cut.")] = None,
    machine_type: MachineName = None,
    instances: Instances = None,
    export: Annotated[Literal["auto", "manual"] | None, typer.Option(help="manual: until `jobs export`.")] = None,
    auto_stop_s: Annotated[int | None, typer.Option(help="Seconds of training.")] = None,
    auto_quantize: Annotated[
        list[str] | None, typer.Option(help="Compress the new model to this precision too; repeat for more.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on conversations: the result is a new model. Ctrl-C leaves the job going."""
    body = {"type": "finetune", **fields_of(spec)}
    body |= given(
        name=name, model=model, output_model_name=output_model_name, method=method, iterations=iterations,
        epochs=epochs, learning_rate=learning_rate, max_length=max_length, machine_type=machine_type,
        instances=instances, export=export, auto_stop_s=auto_stop_s, auto_quantize=auto_quantize or None,
    )  # fmt: skip
    if dataset is not None:
        body["dataset"] = {"uri": source_uri(dataset)}
    if "output_model_name" in body:
        body.setdefault("name", str(body["output_model_name"]).replace(".", "-"))
    api = Api()
    job = api.call("POST", "jobs", json=body)
    if wait:
        show_outcome(wait_for_job(api, job), as_json)
    else:
        show_done(f"{job['id']} is {job['state']}", job, as_json)


def estimate_command(
    model: Annotated[str, typer.Argument(help="A model's ID or name, or a base model of the catalogue.")],
    method: Method = None,
    iterations: Iterations = None,
    epochs: Epochs = None,
    rows: Annotated[int | None, typer.Option(help="Conversations in the dataset; with --epochs.")] = None,
    tokens_per_row: Annotated[float | None, typer.Option(help="As `modelunit data check` tells.")] = None,
    machine_type: MachineName = None,
    flavor: Annotated[str | None, typer.Option(help="Instead: its cards before '*', such as '2*H100'.")] = None,
    instances: Instances = None,
    precision: Annotated[str | None, typer.Option(help="Of a compression to it instead, such as AWQ-W4A16.")] = None,
    as_json: AsJson = False,
) -> None:
    """How long a training would run, or with --precision a compression."""
    if precision is not None:
        show_compression_estimate(Api(), model, precision, machine_type, as_json)
        return
    wish = given(
        model=model, method=method, iterations=iterations, epochs=epochs, rows=rows, tokens_per_row=tokens_per_row,
        machine_type=machine_type, flavor=flavor, instances=instances,
    )  # fmt: skip
    found = Api().call("POST", "jobs:estimate", json=wish)
    if as_json:
        show(found, True)
        return
    what = f"{found['iterations']} iterations on {found['cards'] * found['instances']} cards"
    for span in (found["measured"], found["documented"]):
        if span:
            low, high = span["hours"]
            output.print(f"{what}: {low:.2f} to {high:.2f} hours ({span['source']})")
    if found["hours"] is None:
        output.print(f"{what}: nobody can tell; no such job has completed here, and the product's table has none")


def plot_command(
    job: str,
    out: Annotated[Path | None, typer.Option(help="An .svg file; JOB.svg unless told.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the loss and the learning rate of a training."""
    if out is not None and out.suffix != ".svg":
        raise typer.BadParameter("pictures are written as .svg, which every browser shows", param_hint="--out")
    found = Api().call("GET", f"jobs/{segment(job)}/metrics")
    if not found["points"]:
        raise StartFailed(f"{found['id']} has not trained yet, so there is nothing to draw")
    if as_json:
        show(found, True)
        return
    file = out or Path(f"{found['id']}.svg")
    try:
        file.write_text(svg(found["id"], found["points"]), encoding="utf-8")
    except OSError as error:
        raise StartFailed(f"{file.name} cannot be written: {error.strerror}") from None
    output.print(str(file))


def resume_command(job: str, as_json: AsJson = False) -> None:
    """Go on with a training or a compression that was stopped or failed, from the newest thing that it has kept."""
    resumed = Api().call("POST", f"jobs/{segment(job)}:resume")
    show_done(f"{resumed['id']} goes on", resumed, as_json)


def export_command(job: str, as_json: AsJson = False) -> None:
    """Bring a training's result, or the newest checkpoint of one that was stopped, into the model repository."""
    exported = Api().call("POST", f"jobs/{segment(job)}:export")
    made = exported["output_model"]
    show_done(f"it is model {made}" if made else f"{exported['id']} exports its checkpoint", exported, as_json)
