"""Secrets -> model, for certificates and passwords of the gateway. No error shows a value of a Secret."""

from __future__ import annotations

import binascii
from binascii import a2b_base64

from kproxy.decode import wire
from kproxy.decode.fields import FieldError, Notes, object_name, origin
from kproxy.model import Secret


def secret(source: str, obj: wire.Secret, _: Notes) -> list[Secret]:
    """Decode a Secret v1. A value of stringData replaces one of data."""
    data = {key: _decoded(key, text or "") for key, text in (obj.data or {}).items()}
    data |= {key: (text or "").encode() for key, text in (obj.string_data or {}).items()}
    return [Secret(object_name(obj.metadata), origin(source, obj.metadata), obj.type or "Opaque", data)]


def _decoded(key: str, text: str) -> bytes:
    try:
        return a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        raise FieldError(f"data[{key}]", "is not base64") from None
