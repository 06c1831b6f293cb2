"""By which address the caller of a request reaches the platform."""

from fastapi import Request

from app.core.addresses import base_url
from app.settings import Settings


def reached_at(request: Request, settings: Settings) -> str:
    """The base URL. The routers tell by which address they were called; our own Host is that of Serve's proxy."""
    told = request.headers
    return base_url(
        told.get("x-forwarded-host"), told.get("x-forwarded-proto"), (settings.http_host, settings.http_port)
    )
