"""The model card of a tuned model: what it was made of, how, and with what result."""

import json
from collections.abc import Sequence

from app.core.job_specs import TrainingProgress, TuneTask
from app.core.tuning_spec import TrainingPlan


def model_card(
    task: TuneTask, plan: TrainingPlan, last: TrainingProgress, data_sha256: str, samples_sha256: str
) -> str:
    """As Markdown. Neither paths nor a word of the data are in it, for the card goes wherever the weights go."""
    # JSON is YAML too, and quotes whatever a name may hold.
    head = {"base_model": task.base_model, "tags": ["fine-tuned", plan.method], "library_name": "transformers"}
    rows = [
        ("base model", task.base_model),
        ("made from model", task.model_id),
        ("job", task.job_id),
        ("dataset, sha256", data_sha256),
        ("samples, sha256", samples_sha256),
        ("loss", _number(last.loss)),
        ("validation loss", _number(last.validation_loss)),
        ("iterations done", str(last.iteration)),
    ]
    parts = [
        "---",
        *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()),
        "---",
        f"# {task.spec.output_model_name}",
        _escaped(task.spec.description),
        "",
        *_table(("", ""), rows),
        "",
        "## Parameters",
        "",
        *_table(
            ("parameter", "value", "from"),
            [
                (name, json.dumps(value), plan.origins.get(name, "given"))
                for name, value in plan.model_dump(mode="json", exclude={"origins"}).items()
            ],
        ),
    ]
    return "\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines]


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
