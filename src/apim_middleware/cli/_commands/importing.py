"""``apim import ...``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from apim_middleware.cli._speaking import told
from apim_middleware.configuration import dumps
from apim_middleware.gateway import Gateway
from apim_middleware.stores.keys import MemoryKeys

importing = typer.Typer(no_args_is_help=True, help="Make APIs of what is described elsewhere.")


@importing.command("openapi")
def openapi(
    document: Annotated[Path, typer.Argument(help="an OpenAPI 3.0 or 3.1 document, JSON or YAML")],
    *,
    name: Annotated[str, typer.Option(help="what to call the API")],
    backend: Annotated[str, typer.Option(help="the URL behind it")],
    path: Annotated[str, typer.Option(help="where it begins")] = "/",
    server_path: Annotated[
        str | None, typer.Option(help='what stands in front of its paths, "" for nothing; the path of its servers')
    ] = None,
    mock: Annotated[bool, typer.Option("--mock", help="answer with its examples, and never ask the backend")] = False,
    is_open: Annotated[bool, typer.Option("--open", help="let anybody call it, without a subscription key")] = False,
    form: Annotated[Literal["toml", "yaml", "json"], typer.Option("--format", help="how to write it")] = "toml",
) -> None:
    """Write the API that a document describes, as a gateway file; its keys are the object "keys" of --names."""
    from apim_middleware.openapi import api_from_openapi

    with told():
        api = api_from_openapi(document, name=name, path=path, backend=backend, server_path=server_path, mock=mock)
        keys = MemoryKeys()  # stands for those of the program
        gateway = Gateway(apis=(replace(api, subscription_required=not is_open),), keys=None if is_open else keys)
        written = dumps(gateway, form, names={"keys": keys})
    typer.echo(written.encode(), nl=False)  # UTF-8 wherever it goes, as files are read
