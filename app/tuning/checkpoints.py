"""Checkpoints in the object store: files, then a manifest; what has no manifest does not exist."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.core.tuning_spec import TrainingPlan
from app.store.layout import MANIFEST, ManifestFile
from app.store.object_store import ObjectMissing, ObjectStore, StoreError

KEPT = 2
"""The newest, and one more should a file of it turn out to be broken."""
_FOLDER = re.compile(r"(\d{7})/")
_NOT_TRAINING = {"origins", "checkpoint_every"}
"""What the plan says that does not change any weight."""

log = logging.getLogger(__name__)


class Checkpoint(BaseModel):
    """The manifest of one: how far training was, and of what."""

    model_config = ConfigDict(frozen=True)

    iteration: int
    """How many were done."""
    plan_digest: str
    data_digest: str
    files: tuple[ManifestFile, ...]


def plan_digest(plan: TrainingPlan) -> str:
    """Equal for plans that train alike."""
    values = plan.model_dump(mode="json", exclude=_NOT_TRAINING)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one job, under a prefix of the platform's store that ends with '/'."""

    store: ObjectStore
    prefix: str

    def write(self, plan: TrainingPlan, data_digest: str, iteration: int, files: Mapping[str, Path]) -> Checkpoint:
        """Publish files by their names, and then remove what is older than the last but one. Raises StoreError."""
        folder = self._folder(iteration)
        self.store.delete(folder + MANIFEST)
        described = []
        for name, path in files.items():
            self.store.upload(folder + name, path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                described.append(ManifestFile(name=name, size_bytes=file.tell(), sha256=digest))
        checkpoint = Checkpoint(
            iteration=iteration, plan_digest=plan_digest(plan), data_digest=data_digest, files=tuple(described)
        )
        self.store.write(folder + MANIFEST, checkpoint.model_dump_json().encode())
        self._sweep(iteration)
        return checkpoint

    def newest(self, plan: TrainingPlan, data_digest: str) -> Iterator[Checkpoint]:
        """The complete ones of this plan and data, the newest first. Raises StoreError."""
        for iteration in sorted(self._folders(), reverse=True):
            try:
                found = Checkpoint.model_validate_json(self.store.read(self._folder(iteration) + MANIFEST))
            except (ObjectMissing, ValidationError) as error:
                log.info("no checkpoint at iteration %d: %s", iteration, type(error).__name__)
                continue
            if (found.plan_digest, found.data_digest) == (plan_digest(plan), data_digest):
                yield found

    def fetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Bring its files into a folder. Raises StoreError, also for a file that is not the one that was written."""
        for file in checkpoint.files:
            path = folder / file.name
            self.store.download(self._folder(checkpoint.iteration) + file.name, path)
            with path.open("rb") as there:
                if hashlib.file_digest(there, "sha256").hexdigest() != file.sha256:
                    raise StoreError(f"{file.name} of the checkpoint at iteration {checkpoint.iteration} is broken")

    def fetch_newest(self, plan: TrainingPlan, data_digest: str, folder: Path) -> Checkpoint | None:
        """The newest that is whole, its files in the folder; None when there is none."""
        for checkpoint in self.newest(plan, data_digest):
            try:
                self.fetch(checkpoint, folder)
            except StoreError as error:
                log.warning("checkpoint passed over: %s", error)
                continue
            return checkpoint
        return None

    def _folder(self, iteration: int) -> str:
        return f"{self.prefix}{iteration:07}/"

    def _folders(self) -> set[int]:
        names = (stored.name.removeprefix(self.prefix) for stored in self.store.list(self.prefix))
        return {int(found[1]) for name in names if (found := _FOLDER.match(name))}

    def _sweep(self, newest: int) -> None:
        """Keep the newest and those just before it; what an older run left after it goes too."""
        there = self._folders()
        kept = sorted((iteration for iteration in there if iteration <= newest), reverse=True)[:KEPT]
        for iteration in there.difference(kept):
            folder = self._folder(iteration)
            self.store.delete(folder + MANIFEST)  # first: without it there is nothing
            for stored in list(self.store.list(folder)):
                self.store.delete(stored.name)
