"""What is in the way of a command is one line and an exit code: streams, folders, files, libraries, addresses."""

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers import PATIENCE, free_port
from typer.testing import CliRunner, Result

from apim_middleware import MemoryKeys
from apim_middleware.cli.app import app
from apim_middleware.configuration import load

ROOT = Path(__file__).parents[2]
APPS = "tests.cli.apps"
MAIN = "from apim_middleware.cli import main; main()"
ECHO = """
async def echo(scope, receive, send):
    body = scope["path"].encode() + b"|" + scope["query_string"] + b"|" + (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.hex().encode()})
"""
LONG = "/a-path/" + "that-is-longer-than-a-line-of-a-terminal/" * 5


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def apim(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def command(*arguments: str, before: str = "") -> list[str]:
    return [sys.executable, "-P", "-c", f"{before}\n{MAIN}", *arguments]  # as the script, which has no "" in its path


def run(*arguments: str, before: str = "", encoding: str = "utf-8") -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    told = command(*arguments, before=before)
    return subprocess.run(told, capture_output=True, check=False, encoding=encoding, env=environment, timeout=PATIENCE)


def one_line(text: str) -> str:
    assert len(text.splitlines()) == 1, text
    return text


# What is to be served


def test_without_uvicorn_it_is_told_what_to_install() -> None:
    """It was a traceback."""
    done = run("serve", f"{APPS}:guarded", before="import sys; sys.modules['uvicorn'] = None")
    assert (done.returncode, "'apim-middleware[cli]'" in one_line(done.stderr)) == (1, True)


@pytest.mark.parametrize(("verb", "more"), [("serve", ("--port", "0")), ("request", ("GET", "/"))])
def test_what_cannot_be_called_is_no_app(verb: str, more: tuple[str, ...]) -> None:
    """It was served, and each request failed."""
    done = run(verb, f"{APPS}:nothing", *more)
    assert (done.returncode, "is a str, and no ASGI app" in one_line(done.stderr)) == (1, True)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere"])
def test_an_address_that_granian_cannot_have_is_one_line(host: str) -> None:
    """It was a traceback."""
    done = run("serve", f"{APPS}:guarded", "--server", "granian", "--host", host, "--port", str(free_port()))
    assert done.returncode == 1
    assert f"{host}: cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


# Modules that do not stay


@pytest.mark.parametrize("status", ["", "0", "'stop'"])
@pytest.mark.parametrize("where", ["target", "names", "file"])
def test_a_module_that_ends_the_program_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, status: str
) -> None:
    """The check of a module that ended with ``sys.exit()`` had exit code 0, and nothing was checked."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"leaving_{where}_{'abc'[len(status) % 3]}"
    (tmp_path / f"{name}.py").write_text(f"import sys\nsys.exit({status})")
    file = tmp_path / "gateway.toml"
    file.write_text(f'policies = []\n[[apis]]\nname = "a"\nbackend = {{ import = "{name}:app" }}')
    arguments = {"target": (f"{name}:app",), "names": (str(file), "--names", f"{name}:names"), "file": (str(file),)}
    done = apim("check", *arguments[where])
    assert (done.exit_code, f"{name}.py, line 2" in one_line(done.stderr)) == (1, True)


def test_an_app_that_ends_the_program_is_shown_to(tmp_path: Path) -> None:
    """The command ended with exit code 0, and showed nothing."""
    file = tmp_path / "ending.py"
    file.write_text("import sys\nasync def app(scope, receive, send):\n    sys.exit()")
    done = apim("request", f"{file}:app", "GET", "/")
    assert (done.exit_code, "the app raised SystemExit (" in one_line(done.stderr)) == (1, True)


def test_of_a_group_with_one_error_it_is_the_error_that_is_told(tmp_path: Path) -> None:
    """It was "unhandled errors in a TaskGroup"."""
    file = tmp_path / "grouped.py"
    file.write_text("async def app(scope, receive, send):\n    raise ExceptionGroup('group', [ValueError('inner')])")
    assert "the app raised ValueError: inner" in apim("request", f"{file}:app", "GET", "/").stderr


# Streams


def test_an_ascii_terminal_is_spoken_to_in_ascii() -> None:
    """It was a traceback, for the µ of microseconds."""
    done = run("request", f"{APPS}:before", "GET", "/orders/7", encoding="ascii")
    assert (done.returncode, r"\xb5s" in done.stdout) == (0, True)


def test_json_is_json_in_ascii_too(tmp_path: Path) -> None:
    file = tmp_path / "umlauts.py"
    file.write_text("from starlette.responses import PlainTextResponse\napp = PlainTextResponse('ä')")
    done = run("request", f"{file}:app", "GET", "/", "--json", encoding="ascii")
    assert json.loads(done.stdout)["body"] == "ä"


def test_a_gateway_file_is_utf_8_whatever_the_terminal_is(tmp_path: Path) -> None:
    """It was in the encoding of the terminal, in which it cannot be read."""
    paths = {"/books": {"get": {"responses": {"200": {"description": "all of them"}}}}}
    document = {"openapi": "3.1.0", "info": {"title": "Bücher", "version": "1"}, "paths": paths}
    (tmp_path / "described.json").write_text(json.dumps(document))
    options = ("--name", "books", "--backend", "http://books")
    done = run("import", "openapi", str(tmp_path / "described.json"), *options, encoding="latin-1")
    file = tmp_path / "gateway.toml"
    file.write_bytes(done.stdout.encode("latin-1"))
    assert load(file, names={"keys": MemoryKeys()}).apis[0].title == "Bücher"


def test_a_stdout_that_takes_nothing_is_one_line() -> None:
    """A full disk was a traceback."""
    with Path(os.devnull).open("rb") as closed:
        done = subprocess.run(
            command("check", f"{APPS}:guarded"), stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, one_line(done.stderr)) == (1, "apim: [Errno 9] Bad file descriptor\n")


def test_a_table_in_a_pipe_has_a_line_for_each_row(tmp_path: Path) -> None:
    """It was cut off at 80 columns."""
    assert LONG in run("routes", routed(tmp_path)).stdout


def test_a_narrow_terminal_leaves_nothing_out(tmp_path: Path) -> None:
    """What did not fit ended in dots."""
    shown = on_a_terminal("routes", routed(tmp_path), columns=60)
    assert "…" not in shown
    assert shown.count("-") == 2 * LONG.count("-")  # GET and HEAD


def routed(folder: Path) -> str:
    file = folder / "long.py"
    file.write_text(f"""
from starlette.applications import Starlette
from starlette.routing import Route
app = Starlette(routes=[Route({LONG!r}, lambda request: None)])
""")
    return f"{file}:app"


def on_a_terminal(*arguments: str, columns: int) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "xterm"}
    process = subprocess.Popen(command(*arguments), stdout=theirs, env=environment)
    os.close(theirs)
    heard = b""
    try:
        while data := os.read(ours, 65_536):
            heard += data
    except OSError:  # how a terminal says that nobody writes any more
        pass
    os.close(ours)
    assert process.wait() == 0
    return heard.decode()


# What is typed


def test_bytes_that_are_no_utf_8_are_sent_as_they_were_typed(tmp_path: Path) -> None:
    """They were a traceback."""
    (tmp_path / "echo.py").write_text(ECHO)
    typed = os.fsdecode(b"\xff")
    done = run("request", str(tmp_path / "echo.py:echo"), "GET", f"/{typed}?{typed}", "-d", typed, "--json")
    body = bytes.fromhex(json.loads(done.stdout)["body"])
    assert body == "/\N{REPLACEMENT CHARACTER}".encode() + b"|\xff|\xff"


# Folders and files


def test_in_a_folder_that_is_gone_targets_elsewhere_are_found(tmp_path: Path) -> None:
    """It was a traceback."""
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {shlex.join(command('routes', routed(tmp_path)))}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, LONG in done.stdout) == (0, True)


def test_a_store_that_cannot_be_looked_for_is_one_line() -> None:
    """It was a traceback, as for a folder that may not be read."""
    done = apim("keys", "list", "--store", "a" * 300)
    assert (done.exit_code, "File name too long" in one_line(done.stderr)) == (1, True)


@pytest.mark.parametrize("verb", [("list",), ("new", "one")])
def test_a_store_of_an_unknown_kind_is_none_and_its_password_is_not_shown(verb: tuple[str, ...]) -> None:
    """It was taken for the name of a file."""
    done = apim("keys", *verb, "--store", "reds://:s3cret@localhost")
    assert (done.exit_code, "s3cret" in done.output) == (1, False)
    assert "reds:// is no store of keys" in one_line(done.stderr)


def test_a_subscription_that_is_not_there_is_told_with_the_command_that_shows_them(tmp_path: Path) -> None:
    store = str(tmp_path / "keys.db")
    apim("keys", "new", "one", "--store", store)
    assert "apim keys list shows" in one_line(apim("keys", "suspend", "two", "--store", store).stderr)
