"""What the commands are told to look at: modules, files, and two files of one name."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from apim_middleware.cli.app import app

GUARDED = """
from apim_middleware import Api, Gateway, IPFilter

async def backend(scope, receive, send): ...

gateway = Gateway(apis=(Api("a", "/a", backend=backend, subscription_required=False, policies={policies}),))
"""


def gateway(folder: Path, policies: str, name: str = "gw.py") -> str:
    folder.mkdir()
    (folder / name).write_text(GUARDED.format(policies=policies))
    return f"{folder / name}:gateway"


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    old = gateway(tmp_path / "old", '(IPFilter(allow=("10.0.0.0/8",)),)')
    new = gateway(tmp_path / "new", "()")
    result = CliRunner().invoke(app, ["diff", old, new, "--fail-on-loud"])
    assert "loses IPFilter" in result.output
    assert result.exit_code == 1


def test_a_file_may_have_the_name_of_a_module_that_is_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["routes", gateway(tmp_path / "here", "()", "platform.py")])
    assert "/a" in result.output
    assert result.exit_code == 0


@pytest.mark.parametrize("text", ["raise ImportError('no such thing')", "import nowhere_to_be_found"])
def test_a_file_that_cannot_be_loaded_is_loaded_anew_next_time(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken_at_first.py"
    file.write_text(text)
    assert "cannot be loaded" in CliRunner().invoke(app, ["routes", f"{file}:gateway"]).output
    file.write_text(GUARDED.format(policies="()"))
    assert CliRunner().invoke(app, ["routes", f"{file}:gateway"]).exit_code == 0
