"""A form with files (multipart/form-data) -> the files' bytes by field, and the other fields, checked."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from ming_omni.errors import InputError
from ming_omni.serve.door import Refused
from ming_omni.serve.schema import Body

B = TypeVar("B", bound=Body)


def described(kind: type[Body], files: tuple[str, ...], *, several: bool = False) -> dict[str, Any]:
    """What FastAPI's `openapi_extra` takes, so that the schema tells about the form; several  of the first file"""
    schema = kind.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] |= dict.fromkeys(files, {"type": "array", "items": file} if several else file)
    schema["required"] = [*files[:1], *schema.get("required", ())]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def read_form(
    http: Request,
    kind: type[B],
    files: tuple[str, ...],
    lists: tuple[str, ...] = (),
    *,
    max_files: int = 1,
    max_fields: int = 100,
) -> tuple[dict[str, list[bytes]], B]:
    """Fields that clients repeat (`files` and `lists`) may have [] behind their names; the first file is required."""
    if not http.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused(415, f"this is asked for by a form (multipart/form-data) with the file {files[0]}")
    found: dict[str, list[bytes]] = {}
    fields: dict[str, Any] = {}
    async with http.form(max_files=max_files, max_fields=max_fields) as form:
        for name, value in form.multi_items():
            name = name.removesuffix("[]")
            if isinstance(value, UploadFile):
                if name not in files:
                    # What the body does not know, it refuses by name.
                    fields[name] = value.filename or "a file"
                    continue
                found.setdefault(name, []).append(await value.read())
            elif name in files:
                raise InputError(f"{name} is not a file")
            elif name in lists:
                fields.setdefault(name, []).append(value)
            else:
                fields[name] = value
    if files[0] not in found:
        raise InputError(f"{files[0]} is missing, or is not a file")
    try:
        return found, kind.model_validate(fields)
    except ValidationError as cause:
        raise RequestValidationError(cause.errors()) from cause
