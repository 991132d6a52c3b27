"""Create, update, patch and delete as HTTP requests."""

from __future__ import annotations

import msgspec

from tests.apiserver.http import Request
from tests.apiserver.reads import opened
from tests.apiserver.resources import HAVE_STATUS, MADE_BY_UPDATE, SHOWN_WHEN_DELETED, Manifest, Target
from tests.apiserver.status import ApiError, bad_request, no_such_path, not_found
from tests.apiserver.store import Store, Stored

MERGE_PATCH = "application/merge-patch+json"


def write(store: Store, target: Target, request: Request) -> tuple[int, bytes]:
    """Execute a request. Returns the status and the body of the answer."""
    if target.subresource and (target.subresource != "status" or target.resource.kind not in HAVE_STATUS):
        raise no_such_path()
    with store.lock:
        match request.method:
            case "POST" if not target.name:
                manifest = _manifest(target, request.body)
                if target.resource.kind in HAVE_STATUS:
                    manifest.pop("status", None)
                return 201, _shown(target, store.create(target.resource, manifest))
            case "PUT" if target.name:
                manifest = _manifest(target, request.body)
                if manifest["metadata"]["name"] != target.name:
                    raise bad_request("the name of the object does not match the name on the URL")
                if target.resource.kind in MADE_BY_UPDATE and not _there(store, target):
                    return 201, _shown(target, store.create(target.resource, manifest))
                return 200, _shown(target, _replace(store, target, manifest))
            case "PATCH" if target.name:
                if request.headers.get("content-type", "").partition(";")[0] != MERGE_PATCH:
                    raise ApiError(415, "UnsupportedMediaType", f"only {MERGE_PATCH} is served", details={})
                old = _old(store, target).manifest()
                return 200, _shown(target, _replace(store, target, merge(old, _json(request.body))))
            case "DELETE" if target.name and not target.subresource:
                deleted = store.delete(target.resource, target.key)
                if target.resource.kind in SHOWN_WHEN_DELETED:
                    return 200, _shown(target, deleted)
                uid = deleted.manifest()["metadata"]["uid"]
                details = {"name": target.name, **target.resource.details, "uid": uid}
                status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
                return 200, msgspec.json.encode({**status, "details": details}) + b"\n"
            case _:
                message = "the server does not allow this method on the requested resource"
                raise ApiError(405, "MethodNotAllowed", message, details={})


def merge(old: object, patch: object) -> object:
    """Merge a patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for field, value in patch.items():
        if value is None:
            result.pop(field, None)
        else:
            result[field] = merge(result.get(field), value)
    return result


def _replace(store: Store, target: Target, new: object) -> Stored:
    """Update an object: the status only through its subresource, which changes nothing else."""
    if not isinstance(new, dict):
        raise bad_request("an object is expected")
    if target.resource.kind in HAVE_STATUS:
        old = _old(store, target).manifest()
        rest, status = (old, new) if target.subresource else (new, old)
        metadata = dict(rest["metadata"])
        metadata["resourceVersion"] = new["metadata"].get(
            "resourceVersion", old["metadata"]["resourceVersion"]
        )
        new = {**rest, "metadata": metadata}
        new.pop("status", None)
        if "status" in status:
            new["status"] = status["status"]
    return store.update(target.resource, new)


def _there(store: Store, target: Target) -> Stored | None:
    return store.collections[target.resource].objects.get(target.key)


def _old(store: Store, target: Target) -> Stored:
    found = _there(store, target)
    if found is None:
        raise not_found(target.resource, target.name)
    return found


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None


def _manifest(target: Target, body: bytes) -> Manifest:
    content = _json(body)
    if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
        raise bad_request("an object with metadata is expected")
    metadata = content["metadata"]
    if not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise ApiError(422, "Invalid", "metadata.name: Required value: name or generateName is required")
    if target.resource.namespaced and metadata.setdefault("namespace", target.namespace) != target.namespace:
        raise bad_request("the namespace of the object does not match the namespace on the URL")
    return content


def _shown(target: Target, stored: Stored) -> bytes:
    return opened(target.resource, stored.body) + b"\n"
