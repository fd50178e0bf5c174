"""Secrets are read where they are kept, noticed when they change, and never shown."""

# ruff: noqa: ASYNC240 - the files are small, and nobody waits for them

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from apim_middleware.credentials.key_vault import KeyVaultSecret
from apim_middleware.credentials.secret import EnvironmentSecret, FileSecret, Secret, reader_of
from apim_middleware.env import Env
from apim_middleware.errors import ConfigError, StoreError
from apim_middleware.testing import FakeClock

from .services import Metadata, until

VAULT = "https://orders.vault.azure.net"


@pytest.mark.anyio
async def test_a_text_is_its_own_secret(env: Env) -> None:
    assert await reader_of("hush", env)() == "hush"


# The environment


@pytest.mark.anyio
async def test_a_variable_is_read_as_it_is_now(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIM_TEST_SECRET", "one")
    read = EnvironmentSecret(name="APIM_TEST_SECRET").reader(env)
    assert await read() == "one"
    monkeypatch.setenv("APIM_TEST_SECRET", "two")
    assert await read() == "two"
    monkeypatch.delenv("APIM_TEST_SECRET")
    with pytest.raises(StoreError, match="APIM_TEST_SECRET is not set"):
        await read()


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_told_while_building(
    env: Env, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("APIM_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("APIM_TEST_SECRET", value)
    with pytest.raises(ConfigError, match="is not set"):
        EnvironmentSecret(name="APIM_TEST_SECRET").reader(env)


# Files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("one\n")
    return path


@pytest.mark.anyio
@pytest.mark.parametrize(("content", "secret"), [(b"a", "a"), (b"a\n", "a"), (b"a\r\n", "a"), (b" a\n\n", " a\n")])
async def test_one_line_break_at_the_end_is_left_out(env: Env, file: Path, content: bytes, secret: str) -> None:
    file.write_bytes(content)
    assert await FileSecret(path=file).reader(env)() == secret


@pytest.mark.anyio
async def test_a_file_that_changed_is_read_again_after_its_time(env: Env, file: Path, clock: FakeClock) -> None:
    read = FileSecret(path=str(file), check_every=5).reader(env)
    file.write_text("three")
    assert await read() == "one"
    clock.advance(5)
    assert await read() == "three"


@pytest.mark.anyio
async def test_a_file_that_was_replaced_is_read_again(env: Env, file: Path, clock: FakeClock) -> None:
    """As Kubernetes does it: another file takes the place, of the same size and maybe of the same time."""
    read = FileSecret(path=file).reader(env)
    before = file.stat()
    other = file.with_name("other")
    other.write_text("two\n")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    clock.advance(5)
    assert await read() == "two"


@pytest.mark.anyio
async def test_a_file_is_not_looked_at_for_each_request(
    env: Env, file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = Path.stat
    read = FileSecret(path=file, check_every=5).reader(env)
    monkeypatch.setattr(Path, "stat", lambda path, **more: looks.append(path) or look(path, **more))
    for _ in range(1_000):
        await read()
        clock.advance(0.0125)
    assert len([path for path in looks if path == file]) == 2


def _remove(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    file.write_text("\n")


def _garble(file: Path) -> None:
    file.write_bytes(b"hush\xff\xfe")


def _grow(file: Path) -> None:
    file.write_text("x" * 70_000)


@pytest.mark.anyio
@pytest.mark.parametrize("spoil", [_remove, _empty, _garble, _grow])
async def test_a_file_that_is_spoilt_changes_nothing_and_that_is_told(
    env: Env, file: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    read = FileSecret(path=file).reader(env)
    spoil(file)
    clock.advance(5)
    assert await read() == "one"
    assert "stays what it was" in caplog.text
    assert "hush" not in caplog.text
    if file.exists():
        file.unlink()
    file.write_text("two")
    clock.advance(5)
    assert await read() == "two"


@pytest.mark.parametrize("spoil", [_remove, _empty, _garble, _grow])
def test_a_file_that_cannot_be_read_is_told_while_building(env: Env, file: Path, spoil: Any) -> None:
    spoil(file)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        FileSecret(path=file).reader(env)
    assert "hush" not in str(caught.value)


# Azure Key Vault


@pytest.mark.anyio
async def test_a_secret_of_a_vault_is_asked_for_as_the_vault_wants_it(azure: Env, metadata: Metadata) -> None:
    read = KeyVaultSecret(vault=VAULT, name="upstream", version="abc").reader(azure)
    assert await read() == "vault-secret-1"
    identity, asked = metadata.asked
    assert identity.origin == "http://169.254.169.254"
    assert metadata.query(0)["resource"] == ["https://vault.azure.net"]
    assert (asked.method, asked.origin, asked.target) == ("GET", VAULT, b"/secrets/upstream/abc?api-version=7.4")
    assert metadata.header(b"authorization") == b"Bearer identity-1"


@pytest.mark.anyio
async def test_a_secret_of_a_vault_is_asked_for_once_for_all(azure: Env, metadata: Metadata) -> None:
    read = KeyVaultSecret(vault=VAULT, name="upstream").reader(azure)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(read)
    assert metadata.times == 2


@pytest.mark.anyio
async def test_a_new_version_counts_without_a_restart(azure: Env, metadata: Metadata, clock: FakeClock) -> None:
    read = KeyVaultSecret(vault=VAULT, name="upstream", refresh=60).reader(azure)
    await read()
    metadata.secret = "vault-secret-2"
    clock.advance(60)
    assert await read() == "vault-secret-1"
    await until(lambda: metadata.times == 3)
    assert await read() == "vault-secret-2"


@pytest.mark.anyio
async def test_while_the_vault_is_away_the_last_one_serves_for_its_time(
    azure: Env, metadata: Metadata, clock: FakeClock
) -> None:
    read = KeyVaultSecret(vault=VAULT, name="upstream", refresh=60, stale_if_error=540).reader(azure)
    await read()
    metadata.away = True
    clock.advance(599)
    assert await read() == "vault-secret-1"
    await until(lambda: metadata.times == 3)
    clock.advance(1)
    with pytest.raises(StoreError, match="cannot be had"):
        await read()


@pytest.mark.anyio
@pytest.mark.parametrize("status", [403, 404, 429, 500])
async def test_a_vault_that_gives_nothing_is_not_asked_again_at_once(
    azure: Env, metadata: Metadata, clock: FakeClock, status: int
) -> None:
    read = KeyVaultSecret(vault=VAULT, name="upstream").reader(azure)
    metadata.status = status
    for _ in range(10):
        with pytest.raises(StoreError, match=str(status)):
            await read()
    assert metadata.times == 1
    metadata.status = 200
    clock.advance(5)
    assert await read() == "vault-secret-1"


@pytest.mark.anyio
async def test_a_disabled_secret_is_none(azure: Env, metadata: Metadata) -> None:
    metadata.attributes = {"enabled": False}
    with pytest.raises(StoreError, match="disabled"):
        await KeyVaultSecret(vault=VAULT, name="upstream").reader(azure)()


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("vault", {"vault": "http://orders.vault.azure.net"}),
        ("vault", {"vault": "https://orders.vault.azure.net/secrets"}),
        ("vault", {"vault": "https://ada:hush@orders.vault.azure.net"}),
        ("vault", {"vault": "orders"}),
        ("name", {"name": "a/b"}),
        ("name", {"name": ""}),
        ("version", {"version": "../x"}),
        ("refresh", {"refresh": 0}),
        ("timeout", {"timeout": -1}),
        ("stale_if_error", {"stale_if_error": -1}),
    ],
)
def test_a_vault_that_cannot_be_is_told_while_building(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyVaultSecret(**{"vault": VAULT, "name": "upstream", **fields})
    assert caught.value.field == field
    assert "hush" not in str(caught.value)


# One's own


@pytest.mark.anyio
async def test_a_secret_of_ones_own_needs_one_function(env: Env) -> None:
    class Mine:
        def reader(self, env: Env) -> Any:
            async def read() -> str:
                return "mine"

            return read

    secret: Secret = Mine()
    assert await reader_of(secret, env)() == "mine"
