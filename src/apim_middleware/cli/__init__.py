"""The command ``apim``: serve a gateway, look at it, compare two of them, and keep its keys."""

import sys


def main() -> None:
    """Run the command; says what to install where its library is missing."""
    try:
        from apim_middleware.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit("The command apim needs its extra: pip install 'apim-middleware[cli]'")
    app()
