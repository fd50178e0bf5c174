"""What several commands are told."""

from typing import Annotated, TypeAlias

import typer

Target: TypeAlias = Annotated[
    str, typer.Argument(help="module:attribute, file.py:attribute, or a .toml, .yaml or .json file")
]
Names: TypeAlias = Annotated[
    str, typer.Option(help="module:attribute of a dict of the objects a file refers to with ref")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="write JSON")]
