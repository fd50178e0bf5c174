"""The command ``apim``: serve a gateway, look at it, compare two of them, and keep its keys."""

import os
import sys
from io import TextIOWrapper


def main() -> None:
    """Run the command; says what to install where its library is missing, and why nothing can be written."""
    try:
        from apim_middleware.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit("The command apim needs its extra: pip install 'apim-middleware[cli]'")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does with what a terminal does not have
    try:
        app()
    except OSError as error:  # such as a disk that is full
        if isinstance(sys.stdout, TextIOWrapper):  # what is left would be tried once more at the end, and complained of
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"apim: {error}")
