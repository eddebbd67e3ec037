"""Five hundred hostile requests to a server that really runs, and what they leave behind."""

import http.client
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import textured
from helpers.handmade import png_bomb

pytestmark = pytest.mark.slow

NUM, AT_ONCE = 500, 50
PATHS = ("/api/detect", "/api/inpaint", "/api/report")
KINDS = (
    *("damaged", "cut", "mask", "fields", "path", "type", "large", "half", "junk", "bomb"),
    *("job", "stream"),
)
TELLING = (b"Traceback", b"site-packages", b"overpaint/app", b".py", tempfile.gettempdir().encode())
"""What no answer holds."""
STATUS = Path(f"/proc/{os.getpid()}/status")
SERVE = "import uvicorn\nfrom overpaint.app.server import create_app\n" + (
    "from overpaint.app.guard import Limits\n"
    "if __name__ == '__main__':\n"
    "    limits = Limits(max_bytes=2**20, upload_seconds=2, job_seconds=240, max_uploads=4)\n"
    "    uvicorn.run(create_app(limits), port={port}, log_level='error')\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, int, Path]]:
    """Port, process and folder for temporary files of a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script, temporary = tmp_path / "serve.py", tmp_path / "tmp"
    script.write_text(SERVE.format(port=port))
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        for _ in range(600):
            if answer(port, "GET", "/api/health") == 200:
                break
            time.sleep(0.2)
        else:
            pytest.fail("the server did not start")
        yield port, process.pid, temporary
    finally:
        process.terminate()
        process.wait(60)


def answer(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> int:
    """The status; 0 where the connection fails."""
    return asked(port, method, path, body, **headers)[0]


def asked(
    port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    """The status and what came; 0 where the connection fails."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        found = connection.getresponse()
        said = found.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
    assert not any(word in said for word in TELLING), said[:500]
    return found.status, said


def form(
    data: bytes, name: str = "x.png", mask: bytes | None = None, **fields: str
) -> tuple[bytes, str]:
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
        for k, v in fields.items()
    )
    for field, shown, content in (("file", name, data), ("mask", "m.png", mask)):
        if content is not None:
            head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{shown}"'
            body += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--b--\r\n", "multipart/form-data; boundary=b"


def pictures() -> dict[str, bytes]:
    pixels, made = textured(48, 64, seed=0), {}
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        made[kind] = buffer.getvalue()
    made["bomb"] = png_bomb(40_000)
    mask, buffer = np.zeros((48, 64), np.uint8), io.BytesIO()
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(buffer, "PNG")
    made["mask"] = buffer.getvalue()
    return made


PHOTOS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF")


def hostile(number: int, files: dict[str, bytes], port: int) -> int:
    """One request, a function of its number; -> status."""
    rng = random.Random(number)
    kind, path = rng.choice(KINDS), rng.choice(PATHS)
    data, mask = bytearray(files[rng.choice(PHOTOS)]), bytearray(files["mask"])
    if kind == "damaged":
        for _ in range(rng.choice((1, 10, 100))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif kind == "mask":
        path = "/api/inpaint"
        mask = rng.choice((mask[: rng.randrange(len(mask))], data, bytearray(files["bomb"])))
    elif kind == "large":
        data = data + bytes(rng.choice((2**20, 3 * 2**20)))
    elif kind == "bomb":
        data = bytearray(files["bomb"])
    name = rng.choice(("x.png", "../../../etc/passwd", "a\0b", "\u202e.png", "x" * 5000))
    fields = {}
    if kind == "fields":
        key = rng.choice(("model", "inpainter", "threshold", "unknown"))
        fields[key] = rng.choice(("", "../x", "-1", "1e999", "nan", "all", "\0", "x" * 10_000))
    with_mask = bytes(mask) if path == "/api/inpaint" else None
    body, content_type = form(bytes(data), name, with_mask, **fields)
    if kind == "half":
        body = body[: rng.randrange(len(body))]
        return slow(port, path, body, len(body) + 100)
    if kind in ("job", "stream"):
        return job(port, path, body, rng, listens=kind == "stream")
    if kind == "type":
        content_type = rng.choice(("", "application/json", "multipart/form-data", "text/plain"))
    if kind == "junk":
        body = rng.randbytes(rng.randrange(3000))
    if kind == "path":
        path = rng.choice(
            (
                *("/../../etc/passwd", "/api//detect", "/api/detect%00", "/api/%2e%2e/x"),
                *("/static/../server.py", "/static/..%2f..%2fserver.py", "/api/jobs/../../x"),
                *("/api/jobs/%2e%2e%2f%2e%2e/files/x", "/api/jobs/x/files/..%2f..%2fpasswd"),
            )
        )
        method = rng.choice(("POST", "GET", "DELETE", "PUT"))
        return answer(port, method, path, body, content_type=content_type)
    return answer(port, "POST", path, body, content_type=content_type)


def slow(port: int, path: str, body: bytes, announced: int) -> int:
    """A request whose body is announced longer than what comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}Content-Length: {announced}\r\n\r\n".encode() + body)
        try:
            first = connection.recv(100)
        except OSError:
            return 0
    return int(first.split()[1]) if first else 0


def job(port: int, path: str, body: bytes, rng: random.Random, *, listens: bool) -> int:
    """A job in the background: looked at, its files asked for, and nearly always deleted."""
    content_type = "multipart/form-data; boundary=b"
    status, said = asked(port, "POST", f"{path}?background=true", body, content_type=content_type)
    if status != 202:
        return status
    address = json.loads(said)["id"]
    if listens:  # and goes away in the middle
        with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
            head = f"GET /api/jobs/{address} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            connection.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
            connection.recv(rng.choice((1, 100)))
    for name in ("photo.png", "result.png", "report.html", "..%2f..%2fx", "\u00fc".encode().hex()):
        assert answer(port, "GET", f"/api/jobs/{address}/files/{name}") in (200, 404, 422)
    if rng.random() < 0.05:
        return status  # and never comes back
    while rng.random() < 0.97:  # some are cancelled before they are over, which costs a process
        found, now = asked(port, "GET", f"/api/jobs/{address}")
        if found != 200 or json.loads(now)["state"] not in ("queued", "running"):
            break
        time.sleep(0.2)
    assert answer(port, "DELETE", f"/api/jobs/{address}") == 204
    return answer(port, "GET", f"/api/jobs/{address}")


def memory(process: int) -> float:
    """MB that a process and its children hold."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said = (folder / "status").read_text()
        except OSError:
            continue
        lines = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
        if process in (int(lines["Pid"]), int(lines["PPid"])):
            total += int(lines.get("VmRSS", "0").split()[0]) / 1000
    return total


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc, which is not here")
def test_hostile_requests(server: tuple[int, int, Path]) -> None:
    port, process, temporary = server
    files = pictures()
    good, content_type = form(files["PNG"], mask=files["mask"])

    def works() -> list[int]:
        return [answer(port, "POST", path, good, content_type=content_type) for path in PATHS]

    assert works() == [200] * 3
    for number in range(NUM, NUM + 40):  # so that what is loaded once is loaded
        hostile(number, files, port)
    assert works() == [200] * 3
    before = memory(process)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:  # no more than are taken at once
        found = Counter(pool.map(lambda n: hostile(n, files, port), range(NUM)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        crowd = Counter(pool.map(lambda n: hostile(n, files, port), range(NUM, NUM + AT_ONCE)))
    assert not [status for status in found | crowd if status >= 500], (found, crowd)
    assert found[0] <= NUM // 20, found  # uploads that were cut off before they were read
    assert {200, 400, 404, 408, 413, 422} <= set(found), found
    assert crowd[429] > 0, crowd
    seconds = time.monotonic() - started
    assert works() == [200] * 3
    grown = memory(process) - before
    print(
        sorted(found.items()),
        sorted(crowd.items()),
        f"{before:.0f} MB, then {grown:+.0f} MB, {seconds:.0f} s",
    )
    assert grown < 100
    assert not list(temporary.rglob("*")), "files were left"
