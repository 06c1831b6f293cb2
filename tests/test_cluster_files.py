"""cluster.yaml and serve_configs/ against Ray's own schemas, and against the code they name."""

import ast
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from app.core.specs import MACHINE_TYPES, EndpointSpec
from app.settings import Settings

ROOT = Path(__file__).parents[1]
CONFIGS = ["local", "production"]
LOOPBACK = "127.0.0.1"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(load(f"serve_configs/{request.param}.yaml"))


@pytest.fixture
def cluster() -> dict[str, Any]:
    return prepare_config(load("cluster.yaml"))


def test_serve_config_names_what_exists(config: ServeDeploySchema):
    paths = {application.name: application.import_path for application in config.applications}
    assert paths == {"router": "app.main:router", "control_plane": "app.main:control_plane"}
    main = ast.parse((ROOT / "app/main.py").read_text(encoding="utf-8"))
    builders = {node.name for node in main.body if isinstance(node, ast.FunctionDef)}
    assert {path.partition(":")[2] for path in paths.values()} <= builders


def test_serve_config_keeps_serves_proxy_inside_and_logs_no_requests(config: ServeDeploySchema):
    assert config.http_options.host == LOOPBACK
    assert config.logging_config is not None
    assert not config.logging_config.enable_access_log
    router, control_plane = config.applications
    assert Settings.model_fields["serve_proxy_url"].default == f"http://{LOOPBACK}:{config.http_options.port}"
    assert (router.route_prefix, control_plane.route_prefix) == ("/", "/platform")


def test_serve_config_declares_valid_endpoints(config: ServeDeploySchema):
    endpoints = [EndpointSpec.model_validate(spec) for spec in config.applications[1].args["endpoints"]]
    assert "demo" in [endpoint.name for endpoint in endpoints]
    assert all(endpoint.machine_type in {None, *MACHINE_TYPES} for endpoint in endpoints)


def test_serve_config_gives_builders_arguments_they_take(config: ServeDeploySchema):
    from app.main import ControlPlaneArgs, RouterArgs

    router, control_plane = config.applications
    RouterArgs.model_validate(router.args)
    ControlPlaneArgs.model_validate(control_plane.args)


def test_cluster_is_one_that_ray_can_launch(cluster: dict[str, Any]):
    validate_config(cluster)


def test_cluster_has_room_for_each_machine_type_and_none_on_the_head(cluster: dict[str, Any]):
    nodes = cluster["available_node_types"]
    assert nodes[cluster["head_node_type"]]["resources"] == {"CPU": 0, "head": 1}
    for machine in MACHINE_TYPES.values():
        assert any(
            node["resources"].get("GPU", 0) >= machine.accelerator_count and node["resources"]["CPU"] >= machine.cpus
            for name, node in nodes.items()
            if name != cluster["head_node_type"] and node["max_workers"] > 0
        ), machine.name


@pytest.mark.parametrize("role", ["head", "worker"])
def test_cluster_starts_ray_with_the_token_the_environment_and_the_pinned_python(cluster: dict[str, Any], role: str):
    (start,) = [command for command in cluster[f"{role}_start_ray_commands"] if "ray start" in command]
    environment, _, _ = start.partition("ray start")
    assert "RAY_AUTH_MODE=token" in environment
    assert "PATH=~/modelunit/.venv/bin:$PATH" in environment
    assert ". ~/modelunit.env" in environment
    assert 'eval "$(modelunit env)"' in environment
    assert "--dashboard-host=127.0.0.1" in start or role == "worker"


def test_every_node_has_a_profile_for_the_bucket(cluster: dict[str, Any]):
    profiles = {
        name: node["node_config"]["IamInstanceProfile"]["Name"]
        for name, node in cluster["available_node_types"].items()
    }
    assert profiles.pop(cluster["head_node_type"]) == "modelunit-head"
    assert set(profiles.values()) == {"modelunit-worker"}


def test_what_cluster_yaml_says_to_do_prepares_the_demo_model_and_shows_the_token():
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    head, _, _ = text.partition("cluster_name:")
    _, _, attached = head.partition("`ray attach cluster.yaml`")
    environment, prepare, deploy = (
        attached.index(part)
        for part in (". ~/modelunit.env", "app.weights.prepare", "RAY_AUTH_MODE=token .venv/bin/serve deploy")
    )
    assert environment < prepare < deploy


def test_cluster_installs_the_checkout_by_the_same_set_up(cluster: dict[str, Any]):
    assert cluster["file_mounts"]["~/modelunit"] == "."
    assert "~/modelunit/.ci/setup" in cluster["setup_commands"]
    assert (ROOT / ".ci/setup").stat().st_mode & stat.S_IXUSR
