"""Five hundred hostile requests to a server that really runs, and what they leave behind."""

import http.client
import io
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from conftest import textured
from helpers.handmade import png_bomb

pytestmark = pytest.mark.slow

NUM, AT_ONCE = 500, 50
STATUS = Path(f"/proc/{os.getpid()}/status")
SERVE = "import uvicorn\nfrom overpaint.app.server import create_app\n" + (
    "from overpaint.app.guard import Limits\n"
    "if __name__ == '__main__':\n"
    "    limits = Limits(max_bytes=2**20, upload_seconds=2, job_seconds=60)\n"
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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def form(data: bytes, name: str = "x.png", **fields: str) -> tuple[bytes, str]:
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
        for k, v in fields.items()
    )
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return body + head.encode() + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


def pictures() -> dict[str, bytes]:
    pixels, made = textured(48, 64, seed=0), {}
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        made[kind] = buffer.getvalue()
    return made | {"bomb": png_bomb(40_000)}


def hostile(number: int, files: dict[str, bytes], port: int) -> int:
    """One request, a function of its number; -> status."""
    rng = random.Random(number)
    kind = rng.choice(("damaged", "cut", "fields", "path", "type", "large", "half", "junk", "bomb"))
    data = bytearray(rng.choice([files[k] for k in files if k != "bomb"]))
    if kind == "damaged":
        for _ in range(rng.choice((1, 10, 100))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif kind == "large":
        data = data + bytes(rng.choice((2**20, 3 * 2**20)))
    elif kind == "bomb":
        data = bytearray(files["bomb"])
    name = rng.choice(("x.png", "../../../etc/passwd", "a\0b", "\u202e.png", "x" * 5000))
    fields = {}
    if kind == "fields":
        key = rng.choice(("model", "threshold", "heatmap", "unknown"))
        fields[key] = rng.choice(("", "../x", "-1", "1e999", "nan", "all", "\0", "x" * 10_000))
    body, content_type = form(bytes(data), name, **fields)
    if kind == "half":
        body = body[: rng.randrange(len(body))]
        return slow(port, body, len(body) + 100)
    if kind == "type":
        content_type = rng.choice(("", "application/json", "multipart/form-data", "text/plain"))
    if kind == "junk":
        body = rng.randbytes(rng.randrange(3000))
    path = "/api/detect"
    if kind == "path":
        path = rng.choice(("/../../etc/passwd", "/api//detect", "/api/detect%00", "/api/%2e%2e/x"))
    return answer(port, "POST", path, body, content_type=content_type)


def slow(port: int, body: bytes, announced: int) -> int:
    """A request whose body is announced longer than what comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        head = "POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}Content-Length: {announced}\r\n\r\n".encode() + body)
        try:
            first = connection.recv(100)
        except OSError:
            return 0
    return int(first.split()[1]) if first else 0


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
    good, content_type = form(files["PNG"])

    def works() -> int:
        return answer(port, "POST", "/api/detect", good, content_type=content_type)

    assert works() == 200
    for number in range(40):  # so that what is loaded once is loaded
        hostile(number, files, port)
    before = memory(process)
    with ThreadPoolExecutor(4) as pool:  # no more than are taken at once
        found = Counter(pool.map(lambda n: hostile(n, files, port), range(NUM)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        crowd = Counter(pool.map(lambda n: hostile(n, files, port), range(NUM, NUM + AT_ONCE)))
    assert not [status for status in found | crowd if status >= 500], (found, crowd)
    assert found[0] <= NUM // 20, found  # uploads that were cut off before they were read
    assert {200, 400, 404, 408, 413, 422} <= set(found), found
    assert crowd[429] > 0, crowd
    assert works() == 200
    grown = memory(process) - before
    print(sorted(found.items()), sorted(crowd.items()), f"{before:.0f} MB, then {grown:+.0f} MB")
    assert grown < 100
    assert not list(temporary.rglob("*")), "files were left"
