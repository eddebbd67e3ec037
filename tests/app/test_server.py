"""The REST API: answers, limits, who may ask, and what no answer ever holds."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.worker_jobs import Doer, make_doers
from overpaint import __version__, progress
from overpaint.app.guard import API_POLICY, HEADERS, PAGE_POLICY, Limits
from overpaint.app.jobs import DetectJob, InpaintJob, ReportJob
from overpaint.app.schemas import Job, Model, Problem
from overpaint.app.server import REPORT_POLICY, create_app, make_problem, make_shown_name
from overpaint.app.table import Found, FoundFile
from overpaint.app.worker import JobError
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.errors import InputError

HERE = "http://127.0.0.1"
Do = Callable[[Any], Iterable[Found]]
POSTS = ("/api/detect", "/api/inpaint", "/api/report")
TOKEN = "s3cret-s3cret-s3cret"


def count(job: Any) -> Iterator[Found]:
    """How many bytes the photo has, and the photo."""
    yield Found(
        {"n": len(job.photo)}, (FoundFile("x.png", job.photo, "image/png", "a \u00e4.png"),)
    )


def client(do: Do = count, workers: Any = None, **how: Any) -> TestClient:
    """A client of a server whose workers are `workers`, or do `do`."""
    app = create_app(workers=workers or make_doers(do), **how)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def send(to: TestClient, data: bytes = b"a photo", path: str = "/api/detect", **fields: Any) -> Any:
    files = {"file": ("../../x.png", data)}
    if path.startswith("/api/inpaint"):
        files["mask"] = ("m.png", b"a mask")
    return to.post(path, files=files, data=fields)


def started(to: TestClient, data: bytes = b"a photo") -> str:
    """The address of a job that was sent."""
    answer = send(to, data, "/api/detect?background=true")
    assert answer.status_code == 202
    return answer.headers["location"]


def ended(to: TestClient, address: str) -> dict[str, Any]:
    for _ in range(3000):
        job = to.get(address).json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.02)
    raise AssertionError("the job did not end")


@pytest.fixture
def gate() -> Iterator[tuple[threading.Event, Do]]:
    """An event, and work that waits for it."""
    opened = threading.Event()

    def wait(job: Any) -> Iterator[Found]:
        progress.tell(0.25)
        assert opened.wait(60)
        yield from count(job)

    yield opened, wait
    opened.set()


@pytest.mark.parametrize("path", POSTS)
def test_an_answer_waits_for_its_job(path: str) -> None:
    with client() as to:
        answer = send(to, path=path)
        assert answer.status_code == 200
        job = answer.json()
        assert (job["state"], job["result"], job["share"]) == ("done", {"n": 7}, 1)
        assert job["kind"] == path.removeprefix("/api/")
        file = to.get(job["files"]["x.png"])
        assert (file.content, file.headers["content-type"]) == (b"a photo", "image/png")
        assert file.headers["content-disposition"] == "inline; filename*=UTF-8''a%20%C3%A4.png"
        assert to.get(f"/api/jobs/{job['id']}").json() == job


def test_what_the_worker_gets() -> None:
    doers = make_doers(count)
    to = client(workers=doers)
    send(to, threshold="0.25")
    send(to, path="/api/inpaint", inpainter="telea")
    send(to, path="/api/report")
    assert doers["detect"].jobs == [DetectJob("x.png", b"a photo", DEFAULT_DETECTOR, 0.25)]
    assert doers["inpaint"].jobs == [InpaintJob("x.png", b"a photo", b"a mask", "telea")]
    assert doers["report"].jobs == [ReportJob("x.png", b"a photo", DEFAULT_DETECTOR)]


def test_a_job_in_the_background(gate: tuple[threading.Event, Do]) -> None:
    opened, wait = gate
    with client(wait) as to:
        first, second = started(to), started(to, b"another")
        waiting = to.get(second).json()
        assert (waiting["state"], waiting["ahead"]) == ("queued", 1)
        opened.set()
        assert ended(to, second)["result"] == {"n": 7}
        assert to.get(first).json()["state"] == "done"


def test_a_job_that_is_deleted(gate: tuple[threading.Event, Do]) -> None:
    opened, wait = gate
    with client(wait) as to:
        running, waiting = started(to), started(to)
        assert to.delete(waiting).status_code == 204
        assert to.get(waiting).status_code == 404
        assert to.delete(waiting).status_code == 404
        opened.set()
        address = ended(to, running)["files"]["x.png"]
        assert to.get(address).status_code == 200
        assert to.delete(running).content == b""
        for gone in (running, address):
            answer = to.get(gone)
            assert answer.status_code == 404
            assert answer.json()["message"] == "there is no such job, or not any more"


def test_no_other_file_of_a_job() -> None:
    with client() as to:
        address = started(to)
        ended(to, address)
        for name in ("y.png", "%2e%2e", "..%2fx.png", "%2e%2e%2fx.png", "x.png%00", "x" * 200):
            assert to.get(f"{address}/files/{name}").status_code in (404, 422)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [b.split("\n") for b in text.split("\n\n") if b and not b.startswith(":")]
    return [(e.removeprefix("event: "), json.loads(d.removeprefix("data: "))) for e, d in blocks]


def test_the_events_of_a_job(gate: tuple[threading.Event, Do]) -> None:
    opened, wait = gate

    def do(job: Any) -> Iterator[Found]:
        yield Found({"first": True})
        yield from wait(job)

    with client(do) as to:
        address = started(to)
        while to.get(address).json()["share"] < 0.25:
            time.sleep(0.01)
        timer = threading.Timer(0.2, opened.set)
        timer.start()
        answer = to.get(address, headers={"accept": "text/event-stream"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer.text)
        assert [name for name, _ in found][:1] == ["result"]
        assert found[0][1]["result"] == {"first": True}
        name, last = found[-1]
        assert name == last["state"] == "done"
        assert last == to.get(address).json()
        assert all(d["result"] is None for name, d in found if name == "progress")
        again = to.get(address, headers={"accept": "text/event-stream"})
        assert [name for name, _ in events(again.text)] == ["done"]


def test_health_and_models() -> None:
    to = client()
    limits = {"max_bytes": 64 * 2**20, "max_pixels": 100_000_000}
    assert to.get("/api/health").json() == {"status": "ok", "version": __version__, **limits}
    listed = [Model.model_validate(model) for model in to.get("/api/models").json()]
    found = {model.name: model for model in listed}
    nixnet, auto, mean = found[DEFAULT_DETECTOR], found["auto"], found["mean"]
    assert (nixnet.kind, nixnet.default, nixnet.calibrated) == ("detector", True, True)
    assert nixnet.sha256 is not None
    assert (auto.kind, auto.default, mean.default, mean.sha256) == ("inpainter", True, False, None)
    assert found["safepaint-s"].kind == "inpainter"
    assert not {"safepaint", "nixnet", "ae-colour"} & set(found)  # these cannot be asked for
    assert all(model.summary.endswith(".") for model in listed)


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("/api/detect", {"threshold": "2"}, "threshold"),
        ("/api/detect", {"threshold": "nan"}, "threshold"),
        ("/api/detect", {"threshold": "x"}, "threshold"),
        ("/api/detect", {"model": "../../etc/passwd"}, "model: unknown"),
        ("/api/detect", {"model": "safepaint-s"}, "model: unknown"),
        ("/api/report", {"model": "all"}, "model: unknown"),
        ("/api/inpaint", {"inpainter": "nixnet-s"}, "inpainter: unknown"),
        ("/api/detect?background=perhaps", {}, "background"),
    ],
)
def test_wrong_fields(path: str, fields: dict[str, str], said: str) -> None:
    answer = send(client(), path=path, **fields)
    assert answer.status_code == 422
    assert said in answer.json()["message"]


def test_a_name_that_is_unknown_comes_with_those_that_are_not() -> None:
    assert DEFAULT_DETECTOR in send(client(), model="x").json()["remedy"]
    assert "telea" in send(client(), path="/api/inpaint", inpainter="x").json()["remedy"]


def test_other_requests_than_uploads() -> None:
    to = client()
    for path in POSTS:
        assert to.get(path).status_code == 405
        assert to.get(path).headers["allow"] == "POST"
        assert to.post(path).status_code == 415
        typed = {"content-type": "application/json"}
        assert to.post(path, content=b"{}", headers=typed).status_code == 415
        form = {"content-type": "multipart/form-data; boundary=b"}
        assert to.post(path, content=b"--b\r\nbad", headers=form).status_code in (400, 422)
        assert to.post(path, content=b"--b--", headers=form).status_code == 422
        assert to.post(path, files={"other": b"x"}).status_code == 422
    assert to.put("/api/jobs/x").headers["allow"] == "DELETE, GET"
    assert to.put("/api/jobs/x").json()["remedy"] == "use DELETE, GET"
    assert to.post("/api/detect", files={"x": b""}, data={"file": "text"}).status_code == 422
    assert to.post("/api/inpaint", files={"file": b"x"}).status_code == 422
    paths = ("/docs", "/api/../etc/passwd", "/api/%2e%2e/x", "/api/nothing", "/api/detect/")
    for path in (*paths, "/static/../server.py", "/static/%2e%2e/server.py", "/static/nothing"):
        answer = to.get(path)
        assert answer.status_code in (404, 405)
        assert "message" in answer.json()


def test_uploads_that_are_too_large() -> None:
    to = client(limits=Limits(max_bytes=2000))
    assert send(to, b"x" * 1000).json()["result"] == {"n": 1000}
    answer = send(to, b"x" * 3000)
    assert answer.status_code == 413
    assert "2,000 bytes" in answer.json()["message"]

    def chunks() -> Iterator[bytes]:  # of no announced length
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100

    form = {"content-type": "multipart/form-data; boundary=b"}
    answer = to.post("/api/detect", content=chunks(), headers=form)
    assert answer.status_code == 413
    assert answer.json()["remedy"] == "give a smaller file"


def unfinished(app: Any) -> tuple[list[Any], Any]:
    """What is sent to who uploads the first part of a photo alone, and the call that does so."""
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
    return sent, app(scope, receive, keep)


def test_an_upload_that_does_not_come() -> None:
    app = create_app(Limits(upload_seconds=0.3), workers={"detect": Doer(count)})
    sent, call = unfinished(app)
    asyncio.run(call)
    assert sent[0]["status"] == 408
    assert "0.3 s" in json.loads(sent[1]["body"])["message"]
    assert app._num_uploads == 0


def test_uploads_at_once() -> None:
    app = create_app(Limits(upload_seconds=0.5, max_uploads=2), workers={"detect": Doer(count)})

    async def three() -> list[int]:
        calls = [unfinished(app) for _ in range(3)]
        await asyncio.gather(*(call for _, call in calls))
        return [sent[0]["status"] for sent, _ in calls]

    assert asyncio.run(three()) == [408, 408, 429]
    assert app._num_uploads == 0


def test_jobs_that_wait(gate: tuple[threading.Event, Do]) -> None:
    opened, wait = gate
    with client(wait, limits=Limits(max_queued=2)) as to:
        running = started(to)
        while to.get(running).json()["state"] != "running":
            time.sleep(0.01)
        waiting = [started(to), started(to)]
        late = send(to)
        assert late.status_code == 429
        assert late.headers["retry-after"] == "5"
        assert late.json()["remedy"] == "try again in some seconds"
        assert to.get("/api/health").status_code == 200
        opened.set()
        assert [ended(to, address)["state"] for address in waiting] == ["done", "done"]
        assert send(to).status_code == 200


def test_a_job_that_nobody_waits_for_is_cancelled() -> None:
    began, doer = threading.Event(), Doer(count)

    def wait(job: Any) -> Iterator[Found]:
        began.set()
        yield from ()

    class Cancellable(Doer):
        was_cancelled = False

        def call(self, job: Any, take: Any, tell: Any, cancelled: threading.Event) -> None:
            began.set()
            self.was_cancelled = cancelled.wait(60)
            raise JobError("cancelled", "the job was cancelled")

    doer = Cancellable(wait)
    app = create_app(workers={"detect": doer})
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc\r\n--b--\r\n'
    )
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        while not began.is_set():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def keep(message: Any) -> None:
        pass

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
    asyncio.run(app(scope, receive, keep))
    assert doer.was_cancelled


@pytest.mark.parametrize(
    ("error", "status", "message", "remedy"),
    [
        (JobError("refused", "x.png: cut short; get it again"), 400, "x.png: cut short", "get it"),
        (JobError("too large", "x.png: too many; give less"), 413, "x.png: too many", "give less"),
        (JobError("ended", "the job took longer than 3 s; wait"), 422, "the job took", "wait"),
        (JobError("failed", "/home/someone/secret.py: KeyError"), 500, "the server failed", "log"),
        (RuntimeError("/home/someone/secret.py"), 500, "the server failed", "log"),
    ],
)
def test_errors_of_a_job(error: Exception, status: int, message: str, remedy: str) -> None:
    def fail(job: Any) -> Iterator[Found]:
        raise error
        yield

    with client(fail) as to:
        answer = send(to)
        assert answer.status_code == status
        said = answer.json()
        assert said["message"].startswith(message)
        assert remedy in said["remedy"]
        assert "secret" not in answer.text
        job = ended(to, started(to))
        assert (job["state"], job["error"], job["result"]) == ("failed", said, None)


def test_messages_and_remedies() -> None:
    assert make_problem("a; b; c") == {"message": "a; b", "remedy": "c"}
    assert make_problem("a") == {"message": "a", "remedy": None}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a b.PNG", "a b.PNG"),
        ("", "photo"),
        (None, "photo"),
        ("..", "photo"),
        ("/", "photo"),
        ("a\0b\u202e.png", "a\\x00b\\u202e.png"),
        ("x" * 5000 + ".png", "x" * 100 + ".png"),
    ],
)
def test_what_a_photo_is_called(given: str | None, shown: str) -> None:
    assert make_shown_name(given) == shown


class TestWhoMayAsk:
    def test_only_names_of_the_loopback_interface(self) -> None:
        to = client()
        for host in ("127.0.0.1:8000", "localhost", "[::1]:80", "LOCALHOST:1"):
            assert to.get("/api/health", headers={"host": host}).status_code == 200
        for host in ("example.org", "127.0.0.1.example.org", "", "[", "localhost@example.org"):
            assert to.get("/api/health", headers={"host": host}).status_code == 421
            assert to.get("/", headers={"host": host}).status_code == 421

    def test_no_page_of_another_site(self) -> None:
        to = client()
        for headers in (
            {"origin": "https://example.org"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            answer = to.post("/api/detect", files={"file": b"x"}, headers=headers)
            assert answer.status_code == 403
            assert to.delete("/api/jobs/x", headers=headers).status_code == 403
        own = {"origin": HERE, "sec-fetch-site": "same-origin"}
        assert to.post("/api/detect", files={"file": b"x"}, headers=own).status_code == 200
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert to.get("/", headers=link).status_code == 200
        assert to.get("/static/icon.svg", headers=link).status_code == 403

    def test_a_token(self) -> None:
        to = client(token=TOKEN, any_host=True)
        other = {"host": "example.org"}
        for given in ({}, {"authorization": "Bearer x"}, {"authorization": TOKEN}):
            for path in ("/api/health", "/", "/static/icon.svg", "/api/openapi.json"):
                answer = to.get(path, headers=other | given)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        right = {"authorization": f"Bearer {TOKEN}"}
        assert to.get("/api/health", headers=other | right).status_code == 200

    def test_a_browser_signs_in_once(self) -> None:
        to = client(token=TOKEN)
        for wrong in ("/?token=x", "/?token=", "/?" + "&".join(f"a{i}=1" for i in range(200))):
            assert to.get(wrong).status_code == 401
        assert to.get(f"/api/health?token={TOKEN}").status_code == 401
        answer = to.get(f"/?token={TOKEN}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert to.get("/").status_code == 200  # the client keeps the cookie
        assert send(to).status_code == 200
        to.cookies.clear()
        for wrong in ("overpaint-token=" + "x" * 20, "overpaint-token=", '=;;"', "a=b; c"):
            assert to.get("/", headers={"cookie": wrong}).status_code == 401
        right = {"cookie": f"a=b; overpaint-token={TOKEN}"}
        assert to.get("/", headers=right).status_code == 200

    def test_a_server_for_others_needs_a_good_token(self) -> None:
        with pytest.raises(InputError, match="needs a token"):
            create_app(any_host=True, workers={})
        for token in ("", "short", "with spaces and more", "semi;colon;semi;colon"):
            with pytest.raises(InputError, match="16 or more letters"):
                create_app(token=token, workers={})


def test_every_answer_carries_the_headers() -> None:
    def fail(job: Any) -> Iterator[Found]:
        raise RuntimeError
        yield

    to = client(fail)
    answers = [to.get("/api/health"), to.get("/api/nothing"), send(to), to.post("/api/detect")]
    answers.append(to.get("/api/health", headers={"host": "example.org"}))
    assert [a.status_code for a in answers] == [200, 404, 500, 415, 421]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-security-policy"] == API_POLICY
    for path in ("/", "/static/icon.svg"):
        answers.append(to.get(path))
        assert answers[-1].headers["content-security-policy"] == PAGE_POLICY
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value


def test_a_report_can_do_nothing_in_the_name_of_this_server() -> None:
    def do(job: Any) -> Iterator[Found]:
        yield Found({}, (FoundFile("report.html", b"<p>", "text/html; charset=utf-8", "r.html"),))

    to = client(do)
    answer = to.get(send(to).json()["files"]["report.html"])
    assert answer.headers["content-security-policy"] == REPORT_POLICY
    assert REPORT_POLICY.startswith("sandbox;")


def test_the_document_of_the_api() -> None:
    found = client().get("/api/openapi.json").json()
    jobs = {"/api/jobs/{id}", "/api/jobs/{id}/files/{name}"}
    assert set(found["paths"]) == {"/api/health", "/api/models", *POSTS, *jobs}
    for path in POSTS:
        answers = found["paths"][path]["post"]["responses"]
        assert {"200", "202", "400", "401", "413", "415", "422", "429"} <= set(answers)
    schemas = found["components"]["schemas"]
    assert {"Job", "Problem", "DetectResult", "InpaintResult", "ReportResult"} <= set(schemas)
    assert "HTTPValidationError" not in schemas  # errors have our own shape
    for path in POSTS:
        kind = path.removeprefix("/api/")
        for status, state in (("200", "done"), ("202", "queued")):
            content = found["paths"][path]["post"]["responses"][status]["content"]
            job = Job.model_validate(content["application/json"]["example"])
            assert (job.kind, job.state) == (kind, state)
            assert (job.result is not None) == (state == "done")
            assert set(job.model_fields_set) == set(Job.model_fields)
    Problem.model_validate(schemas["Problem"]["example"])


def test_who_waits_while_the_server_ends_is_told(gate: tuple[threading.Event, Do]) -> None:
    opened, wait = gate
    answers: list[Any] = []
    with client(wait) as to:
        threads = [threading.Thread(target=lambda: answers.append(send(to))) for _ in range(2)]
        started(to)
        for thread in threads:
            thread.start()
        ahead = 0
        while ahead < 3:  # the one that runs, and both that wait
            last = started(to)
            ahead = to.get(last).json()["ahead"]
            to.delete(last)
        threading.Timer(0.3, opened.set).start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [503, 503]
    assert answers[0].json()["message"] == "the job was cancelled"


def test_the_workers_end_with_the_server() -> None:
    doer = Doer(count)
    with client(workers={"detect": doer}):
        assert not doer.closed
    assert doer.closed
