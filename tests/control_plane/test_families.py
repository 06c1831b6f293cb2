"""What an endpoint's units and routers are told of its model's family."""

from app.control_plane.services.families import Families
from app.core.records import DEFAULT_WORKSPACE, Endpoint, Model, Workspace
from app.settings import Settings
from app.store.database import Registry
from tests.control_plane.conftest import OpenPlatform
from tests.control_plane.platforms import by_name, publish_model, spec, table_of
from tests.router.tables import NOW


def model(model_id: str, name: str, base_model: str, workspace: str = "w") -> Model:
    return Model(id=model_id, created_at=NOW, workspace=workspace, name=name, base_model=base_model, state="healthy")


def endpoint(name: str, of: str, workspace: str = "w") -> Endpoint:
    return Endpoint(id=f"ep-{name}", created_at=NOW, workspace=workspace, spec=spec(name, model=of))


def test_a_family_is_found_by_the_models_name_or_id_in_the_endpoints_workspace(open_platform: OpenPlatform) -> None:
    platform = open_platform()
    registry: Registry = platform.registry
    registry.put(*(Workspace(id=name, created_at=NOW, name=name) for name in ("w", "other")))
    for made in (
        model("m-caller", "caller", "Qwen3-0.6B"),
        model("m-plain", "plain", "Llama2-7B"),
        model("m-gone", "gone", "No-Such-Model"),
        model("m-theirs", "plain", "Qwen3-0.6B", "other"),
    ):
        registry.put(made)
    endpoints = [
        endpoint("named", "caller"),
        endpoint("by-id", "m-caller"),
        endpoint("plain", "plain"),
        endpoint("gone", "gone"),
        endpoint("nothing", "nothing"),
        endpoint("theirs", "plain", "other"),
        endpoint("stranger", "m-caller", "other"),
    ]
    families = Families(registry, platform.catalog)
    assert families.that_call_tools(endpoints) == {"ep-named", "ep-by-id", "ep-theirs"}
    assert families.that_call_tools([]) == set()


def test_units_are_told_the_familys_parsers_and_routers_that_it_calls_tools(
    settings: Settings, open_platform: OpenPlatform
) -> None:
    publish_model(settings, "m-1", "Thinker", "Qwen3-0.6B")
    publish_model(settings, "m-2", "Plain", "Llama2-7B")
    platform = open_platform(spec("thinker", model="m-1"), spec("plain", model="m-2"))
    found = by_name(platform)
    told = {name: platform.units.of(one) for name, one in found.items()}
    assert (told["thinker"].tool_parser, told["thinker"].reasoning_parser) == ("hermes", "qwen3")
    assert (told["plain"].tool_parser, told["plain"].reasoning_parser) == (None, None)
    routes = table_of(platform).routes
    assert {name: routes[one.id].chat.tools for name, one in found.items()} == {"thinker": True, "plain": False}
    assert all(one.workspace == DEFAULT_WORKSPACE for one in found.values())
