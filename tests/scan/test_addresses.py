"""A scan of photos at addresses: a bucket of a real S3 server, and a web server, on loopback."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.random_weights import save_small_detector
from helpers.scans import fill, rows, scan

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_detector(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server, with a bucket "photos"."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    yield client
    server.stop()


@pytest.mark.slow
def test_a_bucket_is_scanned_and_gone_on_with(bucket: Any, model: Path, tmp_path: Path) -> None:
    for path in fill(tmp_path / "photos", 4):
        bucket.upload_file(str(path), "photos", f"in/{path.name}")
    bucket.put_object(Bucket="photos", Key="in/deep/bad.jpg", Body=b"\xff\xd8\xff" + b"x" * 300)
    bucket.put_object(Bucket="photos", Key="in/letter.txt", Body=b"no photo")
    out, source = tmp_path / "out", "s3://photos/in"
    result = scan(model, source, "-o", out, "--limit", 3)
    assert result.exit_code == 0, result.output
    first = rows(out)
    assert len(first) == 3
    result = scan(model, source, "-o", out)
    assert result.exit_code == 1, result.output
    assert "3 were done before" in result.output
    found = {row["path"]: row for row in rows(out)}
    assert len(found) == len(rows(out)) == 5
    assert set(found) == {
        "s3://photos/in/deep/bad.jpg",
        *(f"s3://photos/in/{i:03}.png" for i in range(4)),
    }
    failed = [path for path, row in found.items() if row["error"]]
    assert failed == ["s3://photos/in/deep/bad.jpg"]
    for i in range(4):
        row = found[f"s3://photos/in/{i:03}.png"]
        there = bucket.head_object(Bucket="photos", Key=f"in/{i:03}.png")
        assert (row["bytes"], row["modified"]) == (there["ContentLength"], there["ETag"])
    # An object that was written anew is examined anew, and nothing else is.
    bucket.upload_file(str(fill(tmp_path / "more", 6)[5]), "photos", "in/000.png")
    result = scan(model, source, "-o", out)
    assert result.exit_code == 0, result.output
    assert "4 were done before" in result.output
    assert len(rows(out)) == 6
    assert len(rows(out, "photos")) == 5


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_web_server_is_scanned(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the extra https is not installed")
    fill(tmp_path / "web", 2)
    handler = partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        out = tmp_path / "out"
        result = scan(model, f"{base}/000.png", f"{base}/gone.png", "-o", out)
        assert result.exit_code == 1, result.output
        found = {row["path"]: row["error"] for row in rows(out)}
        assert found.pop(f"{base}/000.png") is None
        assert "cannot be read" in found.pop(f"{base}/gone.png")
        assert not found
        # A page of links is a folder.
        result = scan(model, f"{base}/", "-o", out)
        assert result.exit_code == 0, result.output
        assert {row["path"] for row in rows(out)} >= {f"{base}/001.png"}
        assert len(rows(out)) == 3
        server.shutdown()
