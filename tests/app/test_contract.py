"""Requests that are made from the OpenAPI document, valid and not: answers are as it says."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from helpers.worker_jobs import make_doers
from overpaint.app.guard import Limits
from overpaint.app.server import create_app
from overpaint.app.table import Found, FoundFile
from overpaint.app.worker import JobError

schemathesis = pytest.importorskip("schemathesis", reason="the extra dev has schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import CHECKS  # noqa: E402

HERE = "http://127.0.0.1"


def answer(job: Any) -> Iterator[Found]:
    """Each kind of end, by the length of the photo."""
    kinds = ("refused", "too large", "ended", None)
    kind = kinds[len(job.photo) % len(kinds)]
    if kind is not None:
        raise JobError(kind, f"{job.name}: said; done about it")
    result = {
        "file": job.name,
        "sha256": "0" * 64,
        "grade": "limited support",
        "words": "words",
        "verdict": "inconclusive",
        "seconds": 0.5,
    }
    yield Found(result, (FoundFile("photo.png", job.photo, "image/png", "photo.png"),))


APP = create_app(Limits(keep_bytes=2**20), workers=make_doers(answer))


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """The application, without an end after each test."""
    if scope["type"] != "http":
        raise NotImplementedError
    await APP(scope, receive, send)


DOCUMENT = schemathesis.openapi.from_asgi("/api/openapi.json", serve, headers={"host": "127.0.0.1"})
# A schema cannot say which bytes are a photo, nor that a number has to be one that was given out.
LEFT_OUT = [CHECKS.get_one("positive_data_acceptance")]
SEEN: Counter[tuple[str, str, int]] = Counter()


def checked(case: Any) -> Any:
    return case.call_and_validate(base_url=HERE, excluded_checks=LEFT_OUT)


# Not by the package's own `parametrize`: pytest-xdist runs its cases of the first operation alone.
OPERATIONS = {found.ok().label: found.ok() for found in DOCUMENT.get_all_operations()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_answer_is_one_that_the_document_describes(
    operation: Any, mode: GenerationMode
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=10,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        SEEN[case.method, case.path, checked(case).status_code] += 1

    try:
        check()
    except Unsatisfiable:  # without a parameter nothing can be wrong
        assert mode == GenerationMode.NEGATIVE


@pytest.mark.slow
def test_the_requests_went_to_every_address_and_had_every_kind_of_answer() -> None:
    if not SEEN:
        pytest.skip("the requests were not made in this run")
    assert {path for _, path, _ in SEEN} == set(DOCUMENT)
    assert {200, 202, 400, 404, 413, 422} <= {status for _, _, status in SEEN}, SEEN
    assert not any(status >= 500 for _, _, status in SEEN)


@pytest.mark.parametrize("size", range(4))
def test_every_end_of_a_job_is_one_that_the_document_describes(size: int) -> None:
    for kind in ("detect", "report"):
        operation = DOCUMENT[f"/api/{kind}"]["POST"]
        case = operation.Case(body={"file": b"x" * size}, media_type="multipart/form-data")
        response = checked(case)
        assert response.status_code == (400, 413, 422, 200)[size]
        if size < 3:
            continue
        job = response.json()
        for path, more in (
            ("/api/jobs/{id}", {}),
            ("/api/jobs/{id}/files/{name}", {"name": "photo.png"}),
        ):
            case = DOCUMENT[path]["GET"].Case(path_parameters={"id": job["id"], **more})
            assert checked(case).status_code == 200
        case = DOCUMENT["/api/jobs/{id}"]["DELETE"].Case(path_parameters={"id": job["id"]})
        assert checked(case).status_code == 204
