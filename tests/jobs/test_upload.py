"""The upload job: what it copies, what it converts, what it refuses; the store is a folder."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import jobs.upload
import jobs.workspace
from app.core.errors import Unavailable
from app.core.job_specs import JobOutcome, UploadTask, ValidateTask
from app.core.model_specs import Source
from app.settings import Settings
from app.store.folder_use import in_use, is_in_use
from app.store.folders import fingerprint
from app.store.layout import job_object, read_manifest, version_prefix
from app.store.objects import open_store
from app.store.sources import open_source
from jobs.upload import upload
from jobs.workspace import Workspace, sweep_scratch

WEIGHTS = {"model.norm.weight": torch.arange(8, dtype=torch.bfloat16)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pickled weights with what people leave beside them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save(WEIGHTS, folder / "pytorch_model.bin")
    for name in ("training_args.bin", "optimizer_0.bin"):
        torch.save({"lr": 1}, folder / name)
    (folder / "config.json").write_text("{}")
    (folder / "modeling_mine.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def run(tmp_path: Path, folder: Path) -> Any:
    """Runs the job on the folder; fields of the task can be given."""
    settings = Settings(home=tmp_path / "platform")
    store = open_store(settings)

    def run_it(**fields: Any) -> tuple[JobOutcome, Any]:
        wish: dict[str, Any] = {
            "job_id": "job-1", "model_id": "m-1", "base_model": "Tiny-Llama", "precision": "BF16",
            "source": Source(uri=folder.as_uri()), "name": "mine", "validation": False,
        }  # fmt: skip
        return upload(Workspace(settings, store, UploadTask(**wish | fields))), store

    return run_it


def test_pickled_weights_are_published_as_safetensors_and_nothing_else_of_them(run: Any):
    outcome, store = run()
    assert outcome.ok, outcome
    prefix = version_prefix("m-1", "BF16")
    manifest = read_manifest(store, prefix)
    assert manifest
    assert sorted(file.name for file in manifest.files) == ["config.json", "model.safetensors"]
    (name,) = [file.name for file in manifest.files if file.name.endswith(".safetensors")]
    path = store.local_path(prefix + name)
    assert torch.equal(load_file(path)["model.norm.weight"], WEIGHTS["model.norm.weight"])
    assert outcome.digest == manifest.digest
    assert outcome.size_bytes == manifest.total_bytes


def test_pickled_weights_need_room_on_the_node(run: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs.upload, "SPARE_BYTES", 1 << 60)
    outcome, store = run()
    assert [found.code for found in outcome.findings] == ["disk_short"]
    assert "safetensors" in outcome.findings[0].fix
    assert not list(store.list("models/"))


def test_what_jobs_left_on_a_node_goes_after_a_day(tmp_path: Path):
    settings = Settings(home=tmp_path)
    for name in ("job-old", "job-new", "m-demo"):
        (tmp_path / "tmp" / name / "weights").mkdir(parents=True)
        (tmp_path / "tmp" / name / "weights" / "part").touch()
    for path in (tmp_path / "tmp").rglob("*"):
        if "new" not in str(path):
            os.utime(path, (0, 0))
    os.utime(tmp_path / "tmp" / "job-new", (0, 0))
    with in_use(tmp_path / "tmp" / "job-old"):  # a training that writes nothing there for days
        sweep_scratch(settings)
        assert (tmp_path / "tmp" / "job-old" / "weights").exists()
    sweep_scratch(settings)
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == ["job-new", "m-demo"]


def test_one_process_of_a_job_at_a_time_works_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = Settings(home=tmp_path)
    task = ValidateTask(job_id="job-1", model_id="m-1", base_model="b", precision="BF16")
    one, other = (Workspace(settings, open_store(settings), task) for _ in range(2))
    monkeypatch.setattr(jobs.workspace, "RIVAL_S", 1)
    with one.alone():
        assert is_in_use(one.scratch)
        with pytest.raises(Unavailable, match="Another process of this job"), other.alone():
            pass
    with other.alone():
        pass
    assert not is_in_use(one.scratch)


def test_the_node_s_folder_for_work_may_be_a_link(run: Any, tmp_path: Path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "tmp").symlink_to(tmp_path / "large disk")
    outcome, _ = run()
    assert outcome.ok, outcome


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(run: Any, folder: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    outcome, store = run()
    assert [found.code for found in outcome.findings] == ["pickle_refused"]
    assert not (tmp_path / "owned").exists()
    assert read_manifest(store, version_prefix("m-1", "BF16")) is None


def test_safetensors_are_taken_as_they_are_where_there_are_any(run: Any, folder: Path):
    (folder / "model.safetensors").write_bytes(b"whatever")
    outcome, store = run()
    assert outcome.ok
    manifest = read_manifest(store, version_prefix("m-1", "BF16"))
    assert manifest
    assert [file.name for file in manifest.files] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("own_form", [True, False])
def test_no_weight_file_is_published_that_engines_would_load_by_mistake(run: Any, folder: Path, own_form: bool):
    weights = "consolidated.safetensors" if own_form else "model.safetensors"
    for name in (weights, "adapter_model.safetensors", "consolidated.00.safetensors"):
        (folder / name).write_bytes(b"whatever")
    outcome, store = run()
    assert outcome.ok
    manifest = read_manifest(store, version_prefix("m-1", "BF16"))
    assert manifest
    published = {file.name for file in manifest.files if file.name.endswith(".safetensors")}
    assert published == ({weights, "consolidated.00.safetensors"} if own_form else {weights})


def test_a_folder_that_is_not_the_one_that_was_validated_is_refused(run: Any, folder: Path):
    listing = fingerprint(open_source(Source(uri=folder.as_uri()), Settings()))
    (folder / "config.json").write_text('{"another": "content"}')
    outcome, _ = run(listing=listing)
    assert [found.code for found in outcome.findings] == ["source_changed"]


def test_a_link_in_the_folder_is_refused(run: Any, folder: Path):
    (folder / "link.json").symlink_to("/etc/hostname")
    outcome, _ = run()
    assert [found.code for found in outcome.findings] == ["path_refused"]


def test_a_referenced_folder_stays_where_it_is(run: Any, tmp_path: Path):
    _, store = run()
    for name in ("config.json", "model.safetensors"):
        store.write(f"theirs/{name}", b"{}")
    outcome, store = run(
        model_id="m-2", mode="reference", source=Source(uri=(tmp_path / "platform" / "objects" / "theirs").as_uri())
    )  # fmt: skip
    assert outcome.ok, outcome
    manifest = read_manifest(store, version_prefix("m-2", "BF16"))
    assert manifest
    assert manifest.files_at == "theirs/"
    assert [stored.name for stored in store.list(version_prefix("m-2", "BF16"))] == ["models/m-2/BF16/manifest.json"]


def test_pickled_weights_are_not_referenced(run: Any, tmp_path: Path, folder: Path):
    theirs = tmp_path / "platform" / "objects" / "theirs"
    theirs.parent.mkdir(parents=True)
    folder.rename(theirs)
    outcome, _ = run(mode="reference", source=Source(uri=theirs.as_uri()))
    assert [found.code for found in outcome.findings] == ["pickle_refused"]


def test_what_has_arrived_is_noted_under_the_model_not_the_job(run: Any):
    outcome, store = run()
    assert outcome.ok
    assert not [stored for stored in store.list(job_object("job-1", "")) if "journal" in stored.name]
