"""Time of `overpaint app` from a photo to its first result, and to a report.

    python benchmarks/app_times.py PHOTO [--runtime torch-bf16]

- The photo is scaled to 2 megapixels (and for the report to 12) and saved as JPEG of quality 92.
- "First result": the event with verdict and heatmap; "done": all views. The first photo loads
  the model and is not counted; then `--repeat` photos are timed.
- Processor time is that of the server and its workers, user and system. On a machine with other
  work it is more reliable than the wall time, which is printed beside it with the load.
"""

import http.client
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """A running `overpaint app`."""

    def __init__(self, runtime: str) -> None:
        command = [sys.executable, "-m", "overpaint", "app", "--port", "0", "--runtime", runtime]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        address = self._process.stdout.readline().split()[2]
        self._port = int(address.rstrip("/").rpartition(":")[2])

    def measure_processor_seconds(self) -> float:
        """Processor time of the server and its running workers, seconds."""
        total = 0
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = place.read_text().rpartition(")")
            except OSError:
                continue
            fields = rest.split()
            number, parent = int(name.split("(")[0]), int(fields[1])
            if self._process.pid in (number, parent):
                total += int(fields[11]) + int(fields[12])
        return total / TICK

    def post(self, path: str, photo: bytes) -> str:
        """The address of a job in the background."""
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p.jpg"\r\n\r\n'
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        body = head + photo + b"\r\n--b--\r\n"
        answer = self._ask("POST", f"{path}?background=true", body, form)
        return answer.headers["Location"]

    def read_events(self, address: str) -> Iterator[tuple[str, dict]]:
        answer = self._ask("GET", address, b"", {"Accept": "text/event-stream"})
        name = ""
        for line in answer:
            key, _, value = line.decode().strip().partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                yield name, json.loads(value)

    def measure_file_size(self, address: str) -> int:
        return len(self._ask("GET", address, b"", {}).read())

    def _ask(self, method: str, path: str, body: bytes, headers: dict) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=3600)
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def run_server(runtime: str) -> Iterator[Server]:
    server = Server(runtime)
    try:
        yield server
    finally:
        server.end()


def scale_photo(path: Path, megapixels: float) -> bytes:
    image = Image.open(path).convert("RGB")
    factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    size = (round(factor * image.width), round(factor * image.height))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def time_job(
    server: Server, path: str, photo: bytes
) -> tuple[dict[str, tuple[float, float]], dict]:
    """(wall time, processor time), seconds, of the first event of each name; the finished job."""
    started, before, found, job = time.perf_counter(), server.measure_processor_seconds(), {}, {}
    for name, told in server.read_events(server.post(path, photo)):
        passed, used = time.perf_counter() - started, server.measure_processor_seconds() - before
        found.setdefault(name, (passed, used))
        job = told
    if job["state"] != "done":
        sys.exit(f"{path}: {job['error']}")
    return found, job


def main(
    photo: Annotated[Path, typer.Argument(help="A photo.")],
    repeat: Annotated[int, typer.Option(help="Photos that are timed.")] = 3,
    report: Annotated[bool, typer.Option(help="Time also a report of 12 megapixels.")] = False,
    runtime: Annotated[str, typer.Option(help="Of the network, as for overpaint app.")] = "auto",
) -> None:
    """Measure the time to a result, and to a report."""
    small = scale_photo(photo, 2)
    with run_server(runtime) as server:
        time_job(server, "/api/detect", small)
        for _ in range(repeat):
            found, _ = time_job(server, "/api/detect", small)
            words = ", ".join(
                f"{name} after {found[name][0]:.2f} s, {found[name][1]:.2f} s of processors"
                for name in ("result", "done")
            )
            print(f"2 megapixels: {words}; load {os.getloadavg()[0]:.1f}", flush=True)
        if report:
            large = scale_photo(photo, 12)
            detect, _ = time_job(server, "/api/detect", large)
            time_job(server, "/api/report", small)
            whole, job = time_job(server, "/api/report", large)
            size = server.measure_file_size(job["files"]["report.html"])
            ratio = whole["done"][1] / detect["result"][1]
            print(
                f"12 megapixels: detect {detect['result'][1]:.1f} s, report {whole['done'][1]:.1f} "
                f"s of processors, {ratio:.2f} times as much, {size / 1e6:.1f} MB; "
                f"load {os.getloadavg()[0]:.1f}"
            )


if __name__ == "__main__":
    typer.run(main)
