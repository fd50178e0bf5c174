"""What commands say of others' texts: shown, and never obeyed by a terminal."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from apim_middleware.cli import _speaking
from apim_middleware.cli.app import app

ORDERS = "eve\x1b]0;pwned\x07\x1b[2K\x9b31mroot\x7f\r\b"
SHOWN = r"eve\x1b]0;pwned\x07\x1b[2K\x9b31mroot\x7f\x0d\x08"

ANSWERS = """
async def app(scope, receive, send):
    head = [(b"x-name", b"a\\x9b31m\\x1b[2Kb")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": "hi\\x1b[2K\\x9b31m".encode()})
"""


@pytest.fixture
def answers(tmp_path: Path) -> str:
    (tmp_path / "answers.py").write_text(ANSWERS)
    return f"{tmp_path / 'answers.py'}:app"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system=None, width=200, highlight=False, soft_wrap=True)
    monkeypatch.setattr(_speaking, "_out", console)
    return shown


def test_controls_are_shown_and_not_obeyed() -> None:
    assert _speaking.harmless(ORDERS) == SHOWN


def test_text_is_as_it_was() -> None:
    text = "Zoë\tpays 5 €\n漢字 \u00a0\U0001f600"
    assert _speaking.harmless(text) == text


@pytest.mark.parametrize("tell", [_speaking.say, _speaking.say_body])
def test_nobody_gives_orders_to_a_terminal(terminal: io.StringIO, tell: Callable[[str], None]) -> None:
    tell(ORDERS)
    assert terminal.getvalue() == f"{SHOWN}\n"


def test_no_cell_of_a_table_gives_orders(terminal: io.StringIO) -> None:
    filled = _speaking.table("owner")
    filled.add_row(ORDERS)
    _speaking.show(filled)
    assert SHOWN in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


def test_an_owner_gives_no_orders_to_who_lists_keys(tmp_path: Path) -> None:
    store = f"--store={tmp_path / 'keys.db'}"
    assert CliRunner().invoke(app, ["keys", "new", "acme", "--product=p", f"--owner={ORDERS}", store]).exit_code == 0
    listed = CliRunner().invoke(app, ["keys", "list", store])
    assert SHOWN in listed.output
    assert not {"\x1b", "\x07", "\x9b", "\x7f"} & {*listed.output}


def test_json_holds_what_was_said_and_no_orders(terminal: io.StringIO) -> None:
    _speaking.say_json({"owner": ORDERS})
    assert json.loads(terminal.getvalue()) == {"owner": ORDERS}
    assert not {"\x1b", "\x9b"} & {*terminal.getvalue()}


def test_headers_of_an_answer_give_no_orders_and_its_body_none_to_a_terminal(
    answers: str, terminal: io.StringIO
) -> None:
    assert CliRunner().invoke(app, ["request", answers, "GET", "/x"]).exit_code == 0
    assert r"x-name: a\x9b31m\x1b[2Kb" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n\nhi\\x1b[2K\\x9b31m\n")


def test_a_body_for_a_program_is_as_it_is(answers: str) -> None:
    said = CliRunner().invoke(app, ["request", answers, "GET", "/x"])
    assert said.output.endswith("\n\nhi\x1b[2K\x9b31m\n")
    assert r"x-name: a\x9b31m\x1b[2Kb" in said.output
