"""The REST API: health, models, and detection in one photo.

- A photo is examined in a process of its own (`overpaint.app.worker`), one after the other.
- An answer that is no result is {"error": "..."}: what is wrong and what to do, and neither a path
  of this machine nor a trace of the program.
- Interactive documentation would load from another host, so there is the OpenAPI document alone, at
  /api/openapi.json.
"""

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from overpaint import __version__
from overpaint.app import jobs
from overpaint.app.guard import Guard, Limits
from overpaint.app.worker import JobError, ProcessWorker, Worker
from overpaint.detection.runner import DEFAULT_MODEL
from overpaint.errors import ImageError, InputError
from overpaint.weights import list_records

_log = logging.getLogger(__name__)


class Health(BaseModel):
    """That the server answers."""

    status: str
    version: str


class Model(BaseModel):
    """Weights that are here."""

    name: str
    kind: str
    architecture: str
    sha256: str
    parameters: int
    licence: str
    calibrated: bool


class Error(BaseModel):
    """Why there is no result."""

    error: str


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        400: "The file is no photo that can be read, or the form is damaged.",
        401: "A token is required.",
        403: "A page of another site asked.",
        408: "The upload took too long.",
        413: "The upload is too large.",
        421: "Another host was asked for.",
        422: "A field is missing or wrong, or the photo cannot be examined.",
        429: "Too many photos at once.",
        500: "The server failed.",
    }.items()
}


def create_app(
    limits: Limits | None = None,
    *,
    token: str | None = None,
    any_host: bool = False,
    worker: Worker | None = None,
) -> Guard:
    """The application, for an ASGI server such as uvicorn, which must run it in one process.

    token: asked of every request; an address beyond the loopback interface needs one. any_host:
    take requests for names other than the loopback interface's. worker: does the jobs; None
    starts one.
    Raises `InputError` for any_host without a token.
    """
    if any_host and not token:
        raise InputError("a server that others can reach needs a token")
    limits = limits or Limits()
    doer = worker or ProcessWorker(jobs.detect, seconds=limits.job_seconds)

    @asynccontextmanager
    async def ended(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(doer.close)

    app = FastAPI(
        title="overpaint",
        version=__version__,
        summary="Find regions of a photo that an inpainting network filled in.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=ended,
    )
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    _add_routes(app, doer, limits)
    return Guard(app, limits, token=token, any_host=any_host)


def _add_routes(app: FastAPI, worker: Worker, limits: Limits) -> None:
    @app.get("/api/health", responses=_ERRORS)
    def health() -> Health:
        """Whether the server answers."""
        return Health(status="ok", version=__version__)

    @app.get("/api/models", responses=_ERRORS)
    def models() -> list[Model]:
        """The weights that are here; those of kind "detector" are for /api/detect."""
        return [
            Model(
                **{key: getattr(r, key) for key in Model.model_fields if key != "calibrated"},
                calibrated=r.calibration is not None,
            )
            for r in list_records(imported=True)
        ]

    @app.post("/api/detect", responses=_ERRORS)
    def detect(
        file: Annotated[UploadFile, File(description="The photo's file, as it is.")],
        model: Annotated[str, Form(description="Name of a detector.")] = DEFAULT_MODEL,
        threshold: Annotated[
            float | None, Form(description="0..1; without it, the calibrated one.")
        ] = None,
        heatmap: Annotated[
            bool, Form(description="Whether to send the heatmap, PNG of 16 bit in base64.")
        ] = False,
    ) -> dict[str, Any]:
        """The record of `overpaint detect` for one photo, without paths, and `heatmap`."""
        if threshold is not None and not (math.isfinite(threshold) and 0 <= threshold <= 1):
            raise HTTPException(422, "threshold: give a probability from 0 to 1")
        names = [r.name for r in list_records(imported=True) if r.kind == "detector"]
        if model not in names:
            raise HTTPException(422, f"model: unknown; give one of {', '.join(names)}")
        job = jobs.DetectJob(file.file.read(), model, threshold, heatmap, limits.max_pixels)
        try:
            return worker.call(job)
        except (ImageError, InputError) as error:
            raise HTTPException(400, str(error)) from error
        except JobError as error:
            raise HTTPException(422, str(error)) from error


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException), "registered for these alone"
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The fields and what is wrong with them, without what was sent."""
    assert isinstance(error, RequestValidationError), "registered for these alone"
    said = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
    return JSONResponse({"error": "; ".join(said)}, 422)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s failed", request.url.path, exc_info=error)
    return JSONResponse({"error": "the server failed; its log says why"}, 500)
