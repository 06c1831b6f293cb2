"""`modelunit data`: whether a file can be tuned on, and what that would take. Works without a platform."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.cli.api import Api, segment
from app.cli.terminal import AsJson, Commands, errors, output, printable, settings_or_exit, show
from app.local import StartFailed
from app.store.layout import read_manifest, version_prefix
from app.store.object_store import StoreError
from app.store.objects import open_store
from app.tuning.data.checking import ADVISED_ROWS, DataReport, check_data
from app.tuning.data.reading import Format
from app.tuning.data.tokenizer import Tokenizer, TokenizerUnusable, load_tokenizer

data = typer.Typer(
    cls=Commands, help="Data: files of conversations to tune models on.", add_completion=False, no_args_is_help=True
)

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".ckpt", ".pt", ".pth")
_LARGEST_BYTES = 64 << 20


@data.callback()
def _group() -> None:
    """One command alone would lose its name."""


@data.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(help="A .jsonl, .xlsx or .csv file.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A model's folder: its tokenizer counts exactly.")] = None,
    model: Annotated[str | None, typer.Option(help="The same, by ID or name, of the platform here.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens that samples are cut to.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="auto: by its name and its first line.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what a data file holds, what will be cut, how many iterations fit, and what is wrong with it: then ends with
    1. Without a tokenizer tokens are estimated."""
    if tokenizer and model:
        raise typer.BadParameter("--tokenizer and --model say the same thing: leave one of them out")
    try:
        loaded = load_tokenizer(tokenizer) if tokenizer else _tokenizer_of(model) if model else None
        with _bar(file.name) as watch:
            report = check_data(file, loaded, max_length, format=format_, watch=watch)
    except TokenizerUnusable as error:
        raise StartFailed(str(error)) from None
    if as_json:
        show(report.model_dump(mode="json"), True)
    elif not report.problems:
        _print(report)
    if report.problems:
        for problem in report.problems:
            errors.print(str(problem))
        raise typer.Exit(1)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task(printable(name).replace("[", "("), total=1.0)
        yield lambda done: progress.update(bar, completed=done)


def _tokenizer_of(name: str) -> Tokenizer:
    """Of a model whose files this machine can read. Raises TokenizerUnusable, StartFailed."""
    api = Api()
    elsewhere = "the model's files cannot be read from here; name a folder with its tokenizer by --tokenizer"
    if api.platform.here is None:
        raise StartFailed(elsewhere)
    model = api.call("GET", f"models/{segment(name)}")
    if not model["versions"]:
        raise StartFailed(f"{printable(model['name'])} is {model['state']} and has no files yet")
    with tempfile.TemporaryDirectory() as folder:
        try:
            store = open_store(settings_or_exit())
            manifest = read_manifest(store, version_prefix(model["id"], model["versions"][0]["precision"]))
            if manifest is None:
                raise StartFailed(elsewhere)
            for file in manifest.files:
                if "/" not in file.name and not file.name.endswith(_WEIGHTS) and file.size_bytes <= _LARGEST_BYTES:
                    (Path(folder) / file.name).write_bytes(store.read(manifest.files_at + file.name))
        except (StoreError, ValueError):
            raise StartFailed(elsewhere) from None
        return load_tokenizer(Path(folder))


def _print(report: DataReport) -> None:
    about = "" if report.exact else "about "
    limit = f"{report.max_length} tokens"
    (low, high), (first, last) = report.suggested_iterations, report.suggested_epochs
    lines: dict[str, object] = {
        "rows": f"{report.rows:,}",
        "conversations": f"{report.conversations:,}",
        "samples": f"{report.samples:,}",
        "tokens": f"{about}{report.tokens:,}, of which the model learns {report.trained_tokens:,}",
        "longest": f"{about}{report.longest:,} tokens",
    }
    if report.max_length is not None:
        lines["cut"] = f"{about}{report.cut:,} samples at {limit}; {report.cut_tokens:,} tokens are lost at their ends"
        lines["dropped"] = f"{about}{report.dropped:,} samples with nothing left to learn"
    lines["iterations"] = f"{low:,} to {high:,} ({first} to {last} epochs of {report.iterations_per_epoch:,})"
    show(lines, False)
    if not report.exact:
        output.print("\nTokens are estimated from the texts; --tokenizer FOLDER counts them.")
    if 0 < report.samples < ADVISED_ROWS:
        output.print(f"\n{ADVISED_ROWS:,} rows or more are advised.")
