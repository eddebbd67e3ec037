"""`overpaint app`: where it listens, what it refuses, and that it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from overpaint.cli import build
from overpaint.cli.app import _is_loopback
from overpaint.detection import runtimes

TOKEN = "abcdefgh-12345678"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["app", *map(str, arguments)])


def test_which_addresses_are_of_this_machine_alone() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost", "LOCALHOST"):
        assert _is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", ""):
        assert not _is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_other_machines_need_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERPAINT_TOKEN", raising=False)
    result = run("--host", host)
    assert result.exit_code == 2
    assert "OVERPAINT_TOKEN" in result.output


def test_a_token_that_is_easily_guessed() -> None:
    result = run("--token", "secret")
    assert result.exit_code == 2
    assert "16 or more letters" in result.output


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--port", port)
    assert result.exit_code == 2
    assert f"port {port}" in result.output
    assert "give another --port" in result.output


def test_an_address_that_is_not_here() -> None:
    result = run("--host", "192.0.2.1", "--token", TOKEN)  # of TEST-NET-1, RFC 5737
    assert result.exit_code == 2
    assert "192.0.2.1" in result.output


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run()
    assert result.exit_code == 2
    assert "pip install 'overpaint[web]'" in result.output


def test_a_runtime_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("--port", 0, "--runtime", "onnx")
    assert result.exit_code == 2
    assert "pip install" in result.output


def test_bfloat16_where_it_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "_time_choices", lambda _: [1.0, 2.5])
    monkeypatch.setattr(runtimes, "measure_difference", lambda *_: 0.0)
    result = run("--port", 0, "--runtime", "torch-bf16")
    assert result.exit_code == 2
    assert "slower than fp32 on this processor (2.5 s against 1 s" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "overpaint", "app", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OVERPAINT_TOKEN": TOKEN}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        address = said.split("?")[0].split()[-1]
        assert said == f"overpaint app: {address}?token=TOKEN (Ctrl-C ends it)\n"
        assert TOKEN not in said
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}api/health", timeout=60)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("api/health", ""):
            asked = urllib.request.Request(f"{address}{path}", headers=bearer)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                body = answer.read()
                assert "server" not in answer.headers
            if path:
                assert json.loads(body)["status"] == "ok"
        process.send_signal(ending)
        assert process.wait(60) == (0 if ending == signal.SIGINT else -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []
