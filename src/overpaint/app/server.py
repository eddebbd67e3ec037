"""The page and the REST API: routes, requests and answers.

- Jobs run in separate processes, one for each kind (`overpaint.app.table`). Without
  `background=true` an answer waits for its job; the job is cancelled when the client disconnects.
- An answer that is no result is {"message", "remedy"}, without paths of this machine or tracebacks.
- Interactive documentation would load files from another host, so there is only the OpenAPI
  document, at /api/openapi.json.
"""

import asyncio
import contextlib
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files as package_files
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, File, Form, Path, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.staticfiles import StaticFiles

from overpaint import __version__
from overpaint.app import jobs, schemas
from overpaint.app.files import JobFiles
from overpaint.app.guard import Guard, Limits
from overpaint.app.models import list_models, list_names
from overpaint.app.table import Job, JobKind, QueueFullError, Table
from overpaint.app.worker import Kind, ProcessWorker, Worker
from overpaint.defaults import DEFAULT_DETECTOR
from overpaint.errors import InputError
from overpaint.inpainting.choice import AUTO
from overpaint.terminal import make_printable

_log = logging.getLogger(__name__)

EVENTS = "text/event-stream"
REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy of a report, which contains its style and untrusted texts."""

_KEEP_ALIVE = 15.0
"""Seconds after which a stream without events sends a comment."""
_STATIC = package_files("overpaint.app") / "static"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_NAME_LENGTH = 100
_STATUS: Mapping[Kind, int] = {
    "refused": 400,
    "too large": 413,
    "ended": 422,
    "cancelled": 503,
    "failed": 500,
}
_FAILED = "the server failed", "its log says why"


def _document_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        400: "The file is no photo that can be read, or photo and mask do not fit.",
        404: "There is no such job or file, or not any more.",
        408: "The upload took too long.",
        413: "The upload is too large, or the photo has too many pixels.",
        415: "The body is no multipart/form-data.",
        422: "A field is missing or wrong, or the job took too long.",
        429: "Too many jobs wait, or too many uploads come in.",
        401: "A token is required.",
        403: "A page of another site asked.",
        421: "Another host was asked for.",
        500: "The server failed.",
        503: "The server is ending.",
    }
    always = (401, 403, 421, 500)
    return {
        status: {"model": schemas.Problem, "description": texts[status]}
        for status in sorted({*statuses, *always})
    }


_UPLOAD_REFUSALS = _document_refusals(400, 408, 413, 415, 422, 429, 503)
_ACCEPTED = {
    "model": schemas.Job,
    "description": "With background=true: the job, which is queued.",
    "headers": {"Location": {"description": "The job's address.", "schema": {"type": "string"}}},
}
_DESCRIPTION = """
Send a photo as the field `file` of a form to `/api/detect`, `/api/inpaint` or `/api/report`. The
answer waits for the job, contains its `result`, and names its `files`, which are kept for an hour
or until the job is deleted. With `background=true` the answer comes at once, and `/api/jobs/{id}`
gives the progress of the job.

Where the server was started with a token, send the header `Authorization: Bearer TOKEN`. An answer
that is no result has a `message` and, where there is one, a `remedy`.
"""
_Photo = Annotated[UploadFile, File(description="The photo's file, as it is.")]
_Mask = Annotated[
    UploadFile,
    File(description="PNG of the size of the upright photo; white is removed, black stays."),
]
_Background = Annotated[
    bool, Query(description="Answer at once, with the job, instead of with its result.")
]
_Id = Annotated[str, Path(description="Of the job.", max_length=100)]


def create_app(
    limits: Limits | None = None,
    *,
    token: str | None = None,
    any_host: bool = False,
    runtime: str = "torch",
    workers: Mapping[JobKind, Worker] | None = None,
) -> Guard:
    """The application, for an ASGI server such as uvicorn, which must run it in one process.

    token: required of every request; needed where other machines can reach the server. any_host:
    accept requests for other names than those of the loopback interface. runtime: executes
    detectors (`overpaint.detection.runtimes`). workers: run the jobs; None starts processes.
    Raises `InputError` for any_host without a token, and for a token that is short or has other
    characters than letters, digits, ".", "_", "~" and "-".
    """
    if any_host and not token:
        raise InputError("a server that others can reach needs a token")
    if token is not None and not _TOKEN.fullmatch(token):
        raise InputError("the token needs 16 or more letters, digits, '.', '_', '~' or '-'")
    limits = limits or Limits()
    doers = make_process_workers(limits, runtime) if workers is None else workers
    table = Table(doers, limits)

    @asynccontextmanager
    async def run_workers(_: FastAPI) -> AsyncIterator[None]:
        first = doers.get("detect")
        if isinstance(first, ProcessWorker):  # it loads while the user chooses the first photo
            first.start()
        sweeping = asyncio.create_task(_sweep(table, limits.keep_seconds))
        yield
        sweeping.cancel()
        await run_in_threadpool(table.close)

    app = _Documented(
        title="overpaint",
        version=__version__,
        summary="Find regions of a photo that an inpainting network filled in, and fill regions.",
        description=_DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=run_workers,
        # Otherwise the framework answers paths that end in "/" by itself.
        redirect_slashes=False,
    )
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_failure)
    _add_answers(app, limits)
    _add_uploads(app, table)
    _add_jobs(app, table)
    _add_page(app)
    return Guard(app, limits, token=token, any_host=any_host)


class _Documented(FastAPI):
    """Adds examples, which may contain null, and the token's scheme to the OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            found = super().openapi()
            for (method, path, status), example in schemas.EXAMPLES.items():
                answer = found["paths"][path][method]["responses"][str(status)]
                answer["content"]["application/json"]["example"] = example
            schemes = {"token": {"type": "http", "scheme": "bearer"}}
            found["components"]["securitySchemes"] = schemes
            found["security"] = [{}, {"token": []}]  # required only where the server has one
        assert self.openapi_schema is not None, "made above"
        return self.openapi_schema


def make_process_workers(limits: Limits, runtime: str) -> dict[JobKind, Worker]:
    """A worker for each kind of job, whose processes are not started yet."""
    ready = partial(jobs.prepare_detection, limits.max_pixels, runtime)
    bounded = partial(jobs.limit_pixels, limits.max_pixels)
    return {
        "detect": ProcessWorker(
            partial(jobs.detect, runtime=runtime), seconds=limits.job_seconds, prepare=ready
        ),
        "inpaint": ProcessWorker(jobs.inpaint, seconds=limits.job_seconds, prepare=bounded),
        "report": ProcessWorker(
            partial(jobs.report, runtime=runtime), seconds=limits.report_seconds, prepare=ready
        ),
    }


async def _sweep(table: Table, keep_seconds: float) -> None:
    while True:
        await asyncio.sleep(min(10, keep_seconds / 4))
        await run_in_threadpool(table.sweep)


def _add_answers(app: FastAPI, limits: Limits) -> None:
    @app.get("/api/health", responses=_document_refusals())
    def health() -> schemas.Health:
        """Whether the server answers, and its limits."""
        return schemas.Health(
            status="ok",
            version=__version__,
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
        )

    @app.get("/api/models", responses=_document_refusals())
    def models() -> list[schemas.Model]:
        """The available detectors and inpainters, and what each is good for."""
        return [schemas.Model(**one) for one in list_models()]


def _add_uploads(app: FastAPI, table: Table) -> None:
    options: dict[str, Any] = {
        "response_model": schemas.Job,
        "responses": {202: _ACCEPTED, **_UPLOAD_REFUSALS},
    }

    @app.post("/api/detect", **options)
    async def detect(
        request: Request,
        file: _Photo,
        model: Annotated[str, Form(description="Name of a detector.")] = DEFAULT_DETECTOR,
        threshold: Annotated[
            float | None,
            Form(description="0..1; without it, the calibrated one.", ge=0, le=1),
        ] = None,
        background: _Background = False,
    ) -> Response:
        """Where in a photo an inpainting network filled something in.

        Files: photo.jpg or photo.png, as a browser can show it; heatmap.png, 16 bit; mask.png,
        white where marked; the views noise.png, colour.png, error_level.png and, where the photo is
        not too small, jpeg_grid.png.
        """
        if threshold is not None and not math.isfinite(threshold):
            raise HTTPException(422, "threshold: not a number; give a probability from 0 to 1")
        await _check_known("model", model, "detector")
        name = make_shown_name(file.filename)
        uploads = await _keep(photo=file)

        def make(kept: JobFiles) -> jobs.DetectJob:
            return jobs.DetectJob(name, kept.read("photo"), model, threshold)

        return await _submit(table, request, "detect", uploads, make, background=background)

    @app.post("/api/inpaint", **options)
    async def inpaint(
        request: Request,
        file: _Photo,
        mask: _Mask,
        inpainter: Annotated[str, Form(description="Name of an inpainter.")] = AUTO,
        background: _Background = False,
    ) -> Response:
        """Remove from a photo what a mask covers, and fill the hole.

        Files: `result.picture`, marked as edited, in the photo's format where that can be written,
        otherwise PNG; receipt.json, to be kept beside it; after.png where some browsers do not show
        the picture upright; source.c2pa, the photo's own C2PA manifests.
        """
        await _check_known("inpainter", inpainter, "inpainter")
        name = make_shown_name(file.filename)
        uploads = await _keep(photo=file, mask=mask)

        def make(kept: JobFiles) -> jobs.InpaintJob:
            return jobs.InpaintJob(name, kept.read("photo"), kept.read("mask"), inpainter)

        return await _submit(table, request, "inpaint", uploads, make, background=background)

    @app.post("/api/report", **options)
    async def report(
        request: Request,
        file: _Photo,
        model: Annotated[str, Form(description="Name of a detector.")] = DEFAULT_DETECTOR,
        background: _Background = False,
    ) -> Response:
        """A report on a photo, to print and to keep; takes about five times as long as detection.

        Files: report.html, one page without external parts, and report.json, its figures as JSON.
        """
        await _check_known("model", model, "detector")
        name = make_shown_name(file.filename)
        uploads = await _keep(photo=file)

        def make(kept: JobFiles) -> jobs.ReportJob:
            return jobs.ReportJob(name, kept.read("photo"), model)

        return await _submit(table, request, "report", uploads, make, background=background)


async def _check_known(field: str, name: str, kind: str) -> None:
    here = await run_in_threadpool(list_names, kind)
    if name not in here:
        raise HTTPException(422, f"{field}: unknown; give one of {', '.join(here)}")


def make_shown_name(given: str | None) -> str:
    """A photo's name, from the one that its sender gave: one visible line without folders."""
    last = re.split(r"[/\\]", given or "")[-1]
    stem, dot, suffix = make_printable(last).strip(" .").rpartition(".")
    name = f"{stem[:_NAME_LENGTH]}{dot}{suffix[:_NAME_LENGTH]}"
    return name if name.strip(".") else "photo"


async def _keep(**uploads: UploadFile) -> JobFiles:
    """Store the uploads for a job."""
    kept = JobFiles()
    try:
        for name, upload in uploads.items():
            await run_in_threadpool(kept.add, name, upload.file)
    except BaseException:
        kept.close()
        raise
    return kept


async def _submit(
    table: Table,
    request: Request,
    kind: JobKind,
    uploads: JobFiles,
    make: Callable[[JobFiles], Any],
    *,
    background: bool,
) -> Response:
    try:
        job = table.submit(kind, uploads, make)
    except QueueFullError:
        remedy = "too many jobs wait; try again in some seconds"
        raise HTTPException(429, remedy, {"Retry-After": "5"}) from None
    if background:
        where = {"Location": f"/api/jobs/{job.id}"}
        return JSONResponse(describe_job(table, job), 202, where)
    async with contextlib.aclosing(table.watch(job, every=1.0)) as changes:
        async for _ in changes:
            if await request.is_disconnected():
                table.delete(job)
    if job.error is not None:
        problem = _describe_error(job.error)
        return JSONResponse(problem, _STATUS[job.error[0]])
    return JSONResponse(describe_job(table, job))


def describe_job(table: Table, job: Job, *, with_result: bool = True) -> dict[str, Any]:
    """The fields of `schemas.Job`."""
    entries = job.files.entries if job.files is not None else {}
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "ahead": table.count_ahead(job),
        "share": round(job.share, 4),
        "error": None if job.error is None else _describe_error(job.error),
        "result": job.result if with_result else None,
        "files": {name: f"/api/jobs/{job.id}/files/{name}" for name in entries},
    }


def _describe_error(error: tuple[Kind, str]) -> dict[str, str | None]:
    """The fields of `schemas.Problem` for a job's error."""
    kind, said = error
    if kind == "failed":  # a bug, whose message may name files of this machine
        return dict(zip(("message", "remedy"), _FAILED, strict=True))
    return make_problem(said)


def make_problem(said: str) -> dict[str, str | None]:
    """The fields of `schemas.Problem`; the remedy follows the last "; " of a message."""
    message, _, remedy = said.rpartition("; ")
    return {"message": message or remedy, "remedy": remedy if message else None}


def _add_jobs(app: FastAPI, table: Table) -> None:
    @app.get(
        "/api/jobs/{id}",
        response_model=schemas.Job,
        responses={
            200: {
                "description": "The job; with Accept: text/event-stream its events: `progress` "
                "(the job without result), `result` (with the result so far) and at the end one "
                "that is named by its state (the whole job).",
                "content": {EVENTS: {"schema": {"type": "string"}}},
            },
            **_document_refusals(404, 422),
        },
    )
    async def job(id: _Id, request: Request) -> Response:
        """The progress of a job, and its result."""
        found = _find_job(table, id)
        if EVENTS in request.headers.get("accept", ""):
            return StreamingResponse(_stream_events(table, found), media_type=EVENTS)
        return JSONResponse(describe_job(table, found))

    @app.delete("/api/jobs/{id}", status_code=204, responses=_document_refusals(404, 422))
    def cancel(id: _Id) -> None:
        """Cancel a job, end its process if it is running, and delete its files."""
        table.delete(_find_job(table, id))

    kinds = ("image/png", "image/jpeg", "image/tiff", "image/webp", "image/avif")
    others = ("text/html", "application/json", "application/octet-stream")

    @app.get(
        "/api/jobs/{id}/files/{name}",
        response_class=Response,
        responses={
            200: {
                "description": "The file.",
                "content": {
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in (*kinds, *others)
                },
            },
            **_document_refusals(404, 422),
        },
    )
    def file(id: _Id, name: Annotated[str, Path(max_length=100)]) -> Response:
        """A file of a job, until the job is deleted."""
        files = _find_job(table, id).files
        entry = files.entries.get(name) if files is not None else None
        if files is None or entry is None:
            raise HTTPException(404, "there is no such file; the job's `files` names those it has")
        try:
            chunks = files.read_chunks(name)
        except ValueError:  # deleted since it was found
            raise HTTPException(404, _GONE) from None
        headers = {
            "content-length": str(entry.size),
            "content-disposition": f"inline; filename*=UTF-8''{quote(entry.shown_name, safe='')}",
        }
        if entry.media_type.startswith("text/html"):
            headers["content-security-policy"] = REPORT_POLICY
        return StreamingResponse(chunks, headers=headers, media_type=entry.media_type)


_GONE = "there is no such job, or not any more; ask again for what you want to know"


def _find_job(table: Table, number: str) -> Job:
    job = table.get(number)
    if job is None:
        raise HTTPException(404, _GONE)
    return job


async def _stream_events(table: Table, job: Job) -> AsyncIterator[str]:
    """The events of a job, one for each change."""
    result = None
    async with contextlib.aclosing(table.watch(job, _KEEP_ALIVE)) as changes:
        async for has_changed in changes:
            if not has_changed:
                yield ": still there\n\n"
            elif job.is_over:
                yield _format_event(job.state, describe_job(table, job))
            elif job.result is not result:
                result = job.result
                yield _format_event("result", describe_job(table, job))
            else:
                yield _format_event("progress", describe_job(table, job, with_result=False))


def _format_event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(str(_STATIC / "index.html"))

    app.mount("/static", StaticFiles(directory=str(_STATIC)), name="static")


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "registered for these alone"
    said, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 404 and said == "Not Found":
        said = _NOTHING_HERE
    elif error.status_code == 405:
        headers["Allow"] = ", ".join(_list_methods(request))
        said = f"{request.method} is not possible here; use {headers['Allow']}"
    return JSONResponse(make_problem(said), error.status_code, headers)


def _list_methods(request: Request) -> list[str]:
    """All methods of an address: the framework names those of one of its routes only."""
    routes = (r for r in request.app.routes if r.matches(request.scope)[0] != Match.NONE)
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


_NOTHING_HERE = "there is nothing here; see /api/openapi.json for what there is"


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Answer with the invalid fields and their errors, without the values that were sent."""
    assert isinstance(error, RequestValidationError), "registered for these alone"
    sent = request.headers.get("content-type", "")
    if request.method == "POST" and not sent.lower().startswith("multipart/form-data"):
        said = make_problem("the body is no form with files; send multipart/form-data")
        return JSONResponse(said, 415)
    found = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
    return JSONResponse({"message": ", ".join(found), "remedy": None}, 422)


async def _answer_failure(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s failed", request.url.path, exc_info=error)
    return JSONResponse(dict(zip(("message", "remedy"), _FAILED, strict=True)), 500)
