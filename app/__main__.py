"""`python -m app` is `modelunit`."""

from app.cli import main

main()
