"""The composition root: what a serve config's `import_path` names. Importing it does nothing."""

from typing import Any

from app.control_plane.args import ControlPlaneArgs
from app.control_plane.deployment import build as build_control_plane
from app.router.deployment import RouterArgs
from app.router.deployment import build as build_router


def router(args: RouterArgs) -> Any:
    """Application `router`, route `/`: everything that callers send."""
    return build_router(args)


def control_plane(args: ControlPlaneArgs) -> Any:
    """Application `control_plane`, route `/platform`: records, reconciler, control API."""
    return build_control_plane(args)
