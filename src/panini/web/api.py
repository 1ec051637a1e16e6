"""The JSON API: what `panini.web.service` can do, over HTTP. Described in docs/web.md."""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import json
import logging
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from panini.checkpoints import SPECS
from panini.drawing import SMALL_FACE
from panini.editing import heat_map
from panini.errors import (
    ConfigError,
    ImageError,
    MissingExtraError,
    NoFaceError,
    PaniniError,
    ServiceError,
)
from panini.restored import RestoredFace
from panini.web.limits import BusyError, ForgottenError, TimeLimitError, TooLargeError
from panini.web.options import ExplainRequest, RestoreRequest, read_options
from panini.web.service import Explained, Service, Written

_log = logging.getLogger(__name__)

# The first that fits: (class of the error, status, type).
_KINDS: list[tuple[type[Exception], int, str]] = [
    (TooLargeError, 413, "too_large"),
    (BusyError, 503, "busy"),
    (TimeLimitError, 504, "timeout"),
    (ForgottenError, 404, "forgotten"),
    (ServiceError, 503, "stopping"),
    (NoFaceError, 422, "no_face"),
    (ImageError, 422, "bad_image"),
    (ConfigError, 422, "bad_option"),
    (MissingExtraError, 501, "not_installed"),
]
_NAMES = {404: "not_found", 405: "method_not_allowed", 411: "length_required"}


class BadRequestError(PaniniError):
    """The body of a request is not what the API takes."""


def build_api(service: Service) -> FastAPI:
    """The routes below /api/v1."""
    # The pages of FastAPI's own documentation load scripts from elsewhere: docs/web.md it is.
    api = FastAPI(title="Panini", docs_url=None, redoc_url=None, openapi_url=None)
    api.add_exception_handler(PaniniError, _tell)
    api.add_exception_handler(HTTPException, _tell)
    api.add_exception_handler(Exception, _tell)

    @api.post("/restore")
    async def restore(request: Request) -> Response:
        photo, values = await read_photo(request)
        options = read_options(RestoreRequest, values)
        written = await run_in_threadpool(service.restore, photo, options)
        if request.headers.get("accept", "").startswith("image/"):
            return picture_response(written)
        return JSONResponse(describe_written(written))

    @api.post("/explain")
    async def explain(request: Request) -> Response:
        photo, values = await read_photo(request)
        options = read_options(ExplainRequest, values)
        explained = await run_in_threadpool(service.explain, photo, options)
        return JSONResponse(describe_explained(service, explained, options))

    @api.get("/health")
    def health() -> Response:
        return JSONResponse(describe_service(service))

    @api.get("/models")
    def models() -> Response:
        return JSONResponse(describe_models(service))

    return api


async def read_photo(request: Request) -> tuple[bytes, dict[str, Any]]:
    """The photo of a request and the other values, from a form or from JSON.

    Raises:
        BadRequestError: Neither a form with a file "photo" nor JSON with a text "photo".
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == "multipart/form-data":
        return await _from_form(request, body)
    if kind == "application/json":
        return _from_json(body)
    raise BadRequestError(
        f"content type {kind or 'missing'}: send multipart/form-data or application/json"
    )


async def _from_form(request: Request, body: bytes) -> tuple[bytes, dict[str, Any]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=32)
    # All in memory, where it is already: no upload is put down in the system's temporary folder.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        reason = getattr(error, "message", "no boundary")
        raise BadRequestError(f"the form cannot be read ({reason})") from error
    try:
        values: dict[str, Any] = dict(form.multi_items())
        photo = values.pop("photo", None)
        if not isinstance(photo, UploadFile):
            raise BadRequestError('the form has no file "photo"')
        return await photo.read(), values
    finally:
        await form.close()


def _from_json(body: bytes) -> tuple[bytes, dict[str, Any]]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"not JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("photo"), str):
        raise BadRequestError('expected a JSON object with a text "photo", the file in base64')
    text = values.pop("photo")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True), values
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f'"photo" is not base64 ({error})') from error


def error_response(status: int, kind: str, message: str, **headers: str) -> JSONResponse:
    """{"error": {"type", "message", "status"}}, the form of every refusal."""
    content = {"error": {"type": kind, "message": message, "status": status}}
    return JSONResponse(content, status, headers)


def tell_error(error: Exception) -> JSONResponse:
    """An error as JSON; of a bug no more than that there is one, the rest is in the log."""
    if isinstance(error, BusyError):
        after = {"Retry-After": str(error.retry_after)}
        return error_response(503, "busy", str(error), **after)
    for cls, status, kind in _KINDS:
        if isinstance(error, cls):
            return error_response(status, kind, str(error))
    if isinstance(error, PaniniError):
        return error_response(400, "bad_request", str(error))
    if isinstance(error, HTTPException):
        kind = _NAMES.get(error.status_code, "bad_request")
        return error_response(error.status_code, kind, str(error.detail))
    _log.error("a request failed", exc_info=error)
    return error_response(500, "internal", "the server has a bug; its log tells more")


async def _tell(_: Request, error: Exception) -> Response:
    return tell_error(error)


def picture_response(written: Written, name: str | None = None) -> Response:
    """The file itself; with a name, to be saved under it."""
    thetas = ",".join(f"{face.theta:.4f}" for face in written.restoration.faces)
    # A header holds few letters: names of files may have others.
    models = ",".join(quote(face.model) for face in written.restoration.faces)
    headers = {
        "X-Panini-Faces": str(len(written.restoration.faces)),
        "X-Panini-Theta": thetas,
        "X-Panini-Models": models,
    }
    if name is not None:
        headers["Content-Disposition"] = attachment(name)
    headers["Cache-Control"] = "no-store"
    return Response(written.content, media_type=written.media_type, headers=headers)


def attachment(name: str) -> str:
    """A Content-Disposition header that offers a file under a name of any letters."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def describe_written(written: Written) -> dict[str, Any]:
    """A restored photo as JSON."""
    restoration = written.restoration
    width, height = restoration.image.size
    return {
        "photo": base64.b64encode(written.content).decode(),
        "media_type": written.media_type,
        "width": width,
        "height": height,
        "faces": [describe_face(n, face) for n, face in enumerate(restoration.faces, start=1)],
        "settings": dict(restoration.settings),
    }


def describe_face(number: int, face: RestoredFace) -> dict[str, Any]:
    """Where a face is, and how much of it comes from the generator."""
    return {
        "number": number,
        "box": [round(edge, 1) for edge in face.box],
        "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks],
        "model": face.model,
        # A network without masks has none, and JSON no NaN.
        "theta": round(face.theta, 4) if math.isfinite(face.theta) else None,
        "theta_fixed": face.theta_fixed,
    }


def describe_explained(
    service: Service, explained: Explained, options: ExplainRequest
) -> dict[str, Any]:
    """An explanation as JSON; pictures are PNGs in base64."""
    told = explained.explanation
    restored = np.asarray(told.face.restored.convert("RGB"))
    pictures = {
        "input": told.face.lq,
        "restored": told.face.restored,
        "photo_only": told.y_ife,
        "generator_only": told.y_gpb,
        "invention_map": heat_map(restored, told.invention.map),
    }
    return {
        "model": explained.face.model,
        "face": describe_face(options.face, explained.face),
        "variations": options.variations,
        "seed": options.seed,
        "invented": round(told.invention.mean, 4),
        "prior_share": {level: round(float(mask.mean()), 4) for level, mask in told.masks.items()},
        "pictures": {name: _png(image) for name, image in pictures.items()},
    }


def describe_service(service: Service) -> dict[str, Any]:
    """What runs here, and within which limits."""
    limits = service.limits
    return {
        "status": "ok",
        # Asked for as an attribute: the package computes it when it is first used.
        "version": importlib.import_module("panini").__version__,
        "model": service.restorer.name,
        "device": service.restorer.device,
        "waiting": service.line.waiting,
        "limits": {
            "max_mb": limits.max_mb,
            "max_megapixels": limits.max_megapixels,
            "timeout_s": limits.timeout,
            "queue": limits.queue,
        },
    }


def describe_models(service: Service) -> dict[str, Any]:
    """The model that is loaded, and those that ship with the library."""
    config, small = service.restorer.model.config, service.restorer.drawers.small
    shipped = [
        {"name": name, "licence": spec.licence, "megabytes": _megabytes(spec.path)}
        for name, spec in SPECS.items()
    ]
    return {
        "loaded": {
            "name": service.restorer.name,
            "task": config.task,
            "face_size": config.out_size,
            "levels": sorted(config.fusion.prior_channels),
            "small_faces": small and {"name": small.name, "below_px": SMALL_FACE},
        },
        "shipped": shipped,
    }


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _megabytes(path: Path) -> float | None:
    """Size of a file, None when it is not installed."""
    return round(path.stat().st_size / 1e6, 1) if path.is_file() else None
