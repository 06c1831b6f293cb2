"""How long trainings and compressions take, by the product's tables and by what was measured here."""

from typing import Any

from app.catalog.catalog import Catalog
from app.control_plane.services.machines import Machines
from app.control_plane.services.models import Models
from app.core.compression_estimate import CompressionEstimateSpec, CompressionSpan, from_runs, from_table
from app.core.errors import InvalidField, NotFound
from app.core.jobs import quantize_task, tune_task
from app.core.records import Job
from app.core.tuning_estimate import EstimateSpec, Span, cards_of, iterations_of, measured, span
from app.store.database import Registry

JOBS_LOOKED_AT = 200
"""Of those that completed last, over all workspaces: a throughput is nobody's secret."""


class Estimates:
    """Looks up what the formula needs."""

    def __init__(self, registry: Registry, catalog: Catalog, models: Models, machines: Machines):
        self._registry = registry
        self._catalog = catalog
        self._models = models
        self._machines = machines

    def of(self, workspace: str, spec: EstimateSpec) -> dict[str, Any]:
        """Both spans, and which of them counts. Raises NotFound, InvalidField."""
        base_model, iterations = self._base_model(workspace, spec.model), iterations_of(spec)
        if spec.flavor:
            machine, cards = None, cards_of(spec.flavor)
        else:
            self._machines.look()
            found = self._machines.for_job(spec.machine_type)
            machine, cards = found.name, found.accelerator_count
        documented, here = self._documented(base_model, spec, iterations, cards), None
        if machine and (reached := measured(self._reached(base_model, spec, machine))):
            source = f"jobs that tuned {base_model} on {machine} here"
            here = span(iterations, max(1, cards) * spec.instances, reached, source, spec.tokens_per_row)
        counts = here or documented
        return {
            "base_model": base_model,
            "method": spec.method,
            "iterations": iterations,
            "machine_type": machine,
            "cards": max(1, cards),
            "instances": spec.instances,
            "hours": list(counts.hours) if counts else None,
            "documented": documented.model_dump(mode="json") if documented else None,
            "measured": here.model_dump(mode="json") if here else None,
        }

    def of_compression(self, workspace: str, spec: CompressionEstimateSpec) -> dict[str, Any]:
        """As `of`: by table 7-4, which speaks of machines with cards, and by what jobs have taken here."""
        base_model = self._base_model(workspace, spec.model)
        self._machines.look()
        machine = self._machines.for_job(spec.machine_type)
        entry = self._catalog.find(base_model)
        if entry is not None and spec.precision not in entry.compress:
            allowed = ", ".join(entry.compress) or "none"
            raise InvalidField(f"The catalogue offers no {spec.precision} for {base_model}: {allowed}.", "precision")
        minutes = entry.compression_minutes.get(spec.precision) if entry and machine.accelerator_count else None
        documented = from_table(minutes, base_model)
        source = f"jobs that made {spec.precision} of {base_model} on {machine.name} here"
        here = from_runs(self._took_s(base_model, spec, machine.name), source)
        counts = here or documented
        return {
            "base_model": base_model,
            "precision": spec.precision,
            "machine_type": machine.name,
            "hours": list(counts.hours) if counts else None,
            "documented": _shown(documented),
            "measured": _shown(here),
        }

    def _took_s(self, base_model: str, spec: CompressionEstimateSpec, machine: str) -> list[float]:
        """Of jobs that came to their end in one go: what was stopped or lost in between tells nothing."""
        done = self._registry.find(Job, type="quantize", state="completed", newest_first=True, limit=JOBS_LOOKED_AT)
        tasks = [(job, quantize_task(job)) for job in done if job.attempts == 1]
        return [
            (job.finished_at - job.started_at).total_seconds()
            for job, task in tasks
            if job.started_at
            and job.finished_at
            and (task.base_model, task.precision, task.machine.name) == (base_model, spec.precision, machine)
        ]

    def _base_model(self, workspace: str, named: str) -> str:
        try:
            return self._models.get(workspace, named).base_model
        except NotFound:
            entry = self._catalog.find(named)
            if entry is None:
                raise InvalidField(
                    "model is neither a model of this workspace nor in the catalogue.", "model"
                ) from None
            return entry.base_model

    def _documented(self, base_model: str, spec: EstimateSpec, iterations: int, cards: int) -> Span | None:
        """None on a CPU, of which the table says nothing, and for a model that is not in it."""
        entry = self._catalog.find(base_model)
        known = entry.tuning_tokens_per_s_per_card.get(spec.method) if entry else None
        if known is None or not cards:
            return None
        low, high = known
        source = f"table 6-4 of the product's guide, {base_model}"
        return span(iterations, cards * spec.instances, (float(low), float(high)), source)

    def _reached(self, base_model: str, spec: EstimateSpec, machine: str) -> list[float]:
        done = self._registry.find(Job, type="finetune", state="completed", newest_first=True, limit=JOBS_LOOKED_AT)
        tasks = [(job, tune_task(job)) for job in done]
        return [
            job.metrics.get("tokens_per_s_per_card", 0.0)
            for job, task in tasks
            if (task.base_model, task.spec.method, task.machine.name) == (base_model, spec.method, machine)
        ]


def _shown(span: CompressionSpan | None) -> dict[str, Any] | None:
    return span.model_dump(mode="json") if span else None
