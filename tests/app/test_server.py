"""The REST API: answers, limits, who may ask, and what no answer ever holds."""

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from conftest import textured
from helpers.handmade import png_bomb
from overpaint import __version__, detect
from overpaint.app.guard import HEADERS, Limits
from overpaint.app.jobs import DetectJob
from overpaint.app.server import create_app
from overpaint.app.worker import JobError
from overpaint.errors import ImageError, InputError

HERE = "http://127.0.0.1"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Doer:
    """A worker that does what it is told, in this process."""

    def __init__(self, do: Callable[[DetectJob], Any]) -> None:
        self.do, self.jobs, self.closed = do, list[DetectJob](), False

    def call(self, job: DetectJob) -> Any:
        self.jobs.append(job)
        return self.do(job)

    def close(self) -> None:
        self.closed = True


def client(
    do: Callable[[DetectJob], Any] = lambda job: {"n": len(job.data)}, **how: Any
) -> TestClient:
    app = create_app(worker=Doer(do), **how)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def send(to: TestClient, data: bytes = b"a photo", **fields: Any) -> Any:
    return to.post("/api/detect", files={"file": ("../../x.png", data)}, data=fields)


@pytest.fixture(scope="module")
def real() -> Iterator[TestClient]:
    """With the worker's process and the shipped detector."""
    with TestClient(create_app(), base_url=HERE) as made:
        yield made


def test_detection_is_that_of_the_library(real: TestClient) -> None:
    data = png(textured(140, 150, seed=0))
    answer = send(real, data, heatmap="true")
    assert answer.status_code == 200, answer.text
    said, found = answer.json(), detect(data)
    assert said["words"] == found.words
    assert said["score"] == pytest.approx(found.score, abs=1e-4)
    assert said["sha256"] == found.sha256
    assert not {"file", "path"} & set(said)
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(said["heatmap"]))))
    assert heat.shape == (140, 150)
    assert np.abs(heat / 65535 - found.heatmap).max() < 1e-3
    assert send(real, data).json()["heatmap"] is None
    assert send(real, data, threshold=0.25).json()["threshold"] == 0.25


@pytest.mark.parametrize(
    "data", [b"", b"no photo", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"\xff\xd8\xff"]
)
def test_what_is_no_photo_is_refused_with_a_remedy(real: TestClient, data: bytes) -> None:
    answer = send(real, data)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 20


def test_a_bomb_is_refused(real: TestClient) -> None:
    answer = send(real, png_bomb(30_000))
    assert answer.status_code == 400
    assert "pixels" in answer.json()["error"]


def test_health_and_models() -> None:
    to = client()
    assert to.get("/api/health").json() == {"status": "ok", "version": __version__}
    found = {model["name"]: model for model in to.get("/api/models").json()}
    assert found["nixnet-s"]["kind"] == "detector"
    assert found["nixnet-s"]["calibrated"] is True
    assert len(found["nixnet-s"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"threshold": "2"}, "0 to 1"),
        ({"threshold": "nan"}, "0 to 1"),
        ({"threshold": "x"}, "threshold"),
        ({"model": "../../etc/passwd"}, "model: unknown; give one of nixnet-s"),
        ({"model": "safepaint-s"}, "model: unknown"),
        ({"heatmap": "perhaps"}, "heatmap"),
    ],
)
def test_wrong_fields(fields: dict[str, str], said: str) -> None:
    answer = send(client(), **fields)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_other_requests_than_uploads() -> None:
    to = client()
    assert to.post("/api/detect").status_code == 422
    assert (
        to.post("/api/detect", content=b"x", headers={"content-type": "text/x"}).status_code == 422
    )
    form = {"content-type": "multipart/form-data; boundary=b"}
    assert to.post("/api/detect", content=b"--b\r\nbad", headers=form).status_code in (400, 422)
    assert to.post("/api/detect", data={"file": "text"}).status_code == 422
    assert to.get("/api/detect").status_code == 405
    for path in ("/", "/docs", "/api/../etc/passwd", "/api/%2e%2e/x", "/api/nothing"):
        answer = to.get(path)
        assert answer.status_code == 404
        assert "error" in answer.json()


def test_uploads_that_are_too_large() -> None:
    to = client(limits=Limits(max_bytes=2000))
    assert send(to, b"x" * 1000).json() == {"n": 1000}
    answer = send(to, b"x" * 3000)
    assert answer.status_code == 413
    assert "2,000 bytes" in answer.json()["error"]

    def chunks() -> Iterator[bytes]:  # of no announced length
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100

    form = {"content-type": "multipart/form-data; boundary=b"}
    assert to.post("/api/detect", content=chunks(), headers=form).status_code == 413


def test_an_upload_that_does_not_come() -> None:
    sent: list[Any] = []
    first = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc'
    parts = [{"type": "http.request", "body": first, "more_body": True}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)
        raise AssertionError("waited for the rest")

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/detect",
        "raw_path": b"/api/detect",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"multipart/form-data; boundary=b"),
        ],
    }
    app = create_app(Limits(upload_seconds=0.3), worker=Doer(lambda job: {}))
    asyncio.run(app(scope, receive, keep))
    assert sent[0]["status"] == 408
    assert "0.3 s" in json.loads(sent[1]["body"])["error"]
    assert app._num_uploads == 0


def test_photos_at_once() -> None:
    free, started = threading.Event(), threading.Semaphore(0)

    def wait(job: DetectJob) -> dict[str, int]:
        started.release()
        free.wait(60)
        return {"n": 1}

    with client(wait, limits=Limits(max_uploads=2)) as to:
        answers: list[int] = []
        ask = lambda: answers.append(send(to).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert started.acquire(timeout=60)
        late = send(to)
        assert late.status_code == 429
        assert late.headers["retry-after"] == "5"
        assert to.get("/api/health").status_code == 200
        free.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert send(to).status_code == 200  # those that ended are not counted


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImageError("the bytes given: cut short"), 400),
        (InputError("array: wrong"), 400),
        (JobError("the job took longer than 3 s"), 422),
        (RuntimeError("/home/someone/secret.py: KeyError"), 500),
    ],
)
def test_errors_of_a_job(error: Exception, status: int) -> None:
    def fail(job: DetectJob) -> None:
        raise error

    answer = send(client(fail))
    assert answer.status_code == status
    said = answer.json()["error"]
    assert said == str(error) if status < 500 else "secret" not in said
    assert "Traceback" not in answer.text


class TestWhoMayAsk:
    def test_only_names_of_the_loopback_interface(self) -> None:
        to = client()
        for host in ("127.0.0.1:8000", "localhost", "[::1]:80", "LOCALHOST:1"):
            assert to.get("/api/health", headers={"host": host}).status_code == 200
        for host in ("example.org", "127.0.0.1.example.org", "", "[", "localhost@example.org"):
            assert to.get("/api/health", headers={"host": host}).status_code == 421

    def test_no_page_of_another_site(self) -> None:
        to = client()
        for headers in (
            {"origin": "https://example.org"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
        ):
            answer = to.post("/api/detect", files={"file": b"x"}, headers=headers)
            assert answer.status_code == 403
        own = {"origin": HERE, "sec-fetch-site": "same-origin"}
        assert to.post("/api/detect", files={"file": b"x"}, headers=own).status_code == 200

    def test_a_token(self) -> None:
        to = client(token="s3cret", any_host=True)
        other = {"host": "example.org"}
        for given in ({}, {"authorization": "Bearer x"}, {"authorization": "s3cret"}):
            answer = to.get("/api/health", headers=other | given)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer s3cret"}
        assert to.get("/api/health", headers=other | right).status_code == 200
        with pytest.raises(InputError, match="token"):
            create_app(any_host=True, worker=Doer(len))


def test_every_answer_carries_the_headers() -> None:
    def fail(job: DetectJob) -> None:
        raise RuntimeError

    to = client(fail)
    answers = [to.get("/api/health"), to.get("/nothing"), send(to), to.post("/api/detect")]
    answers.append(to.get("/api/health", headers={"host": "example.org"}))
    assert [a.status_code for a in answers] == [200, 404, 500, 422, 421]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert answer.headers["content-type"] == "application/json"


def test_the_document_of_the_api() -> None:
    found = client().get("/api/openapi.json").json()
    assert set(found["paths"]) == {"/api/health", "/api/models", "/api/detect"}
    form = json.dumps(found["components"]["schemas"])
    assert '"file"' in form
    assert {"400", "413", "422", "429"} <= set(found["paths"]["/api/detect"]["post"]["responses"])


def test_the_worker_ends_with_the_server() -> None:
    doer = Doer(lambda job: {})
    with TestClient(create_app(worker=doer), base_url=HERE):
        assert not doer.closed
    assert doer.closed
