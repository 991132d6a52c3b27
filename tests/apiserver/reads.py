"""Get and list: the objects, their revision, and the size of a page.

The resourceVersion of a list: unset means the newest state, "0" any state (here: the newest), N not older
than N, or exactly N with resourceVersionMatch=Exact or a limit. With "0" a limit is ignored, because the
answer comes from the watch cache. A continue token contains the revision of the first page and the next key.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from tests.apiserver.resources import FIELDS, Resource, Target
from tests.apiserver.selectors import field_selector, label_selector
from tests.apiserver.status import ApiError, bad_request, expired, invalid, not_found, too_large
from tests.apiserver.store import Store, Stored

Query = Mapping[str, str]
Match = Callable[[Stored], bool]


def opened(resource: Resource, body: bytes) -> bytes:
    """Return the JSON of an object with its kind, as outside a list."""
    return b'{"kind":"%s","apiVersion":"%s",%s' % (
        resource.kind.encode(),
        resource.api_version.encode(),
        body[1:],
    )


def matcher(target: Target, query: Query) -> Match | None:
    """Return a function that selects the objects of a list or watch; None for all objects."""
    labels = label_selector(query.get("labelSelector", ""))
    fields = field_selector(query.get("fieldSelector", ""))
    for field in fields:
        if field.name not in {"metadata.name", "metadata.namespace", *FIELDS.get(target.resource.kind, ())}:
            raise bad_request(f"field label not supported: {field.name}")
    prefix = f"{target.namespace}/" if target.namespace else ""
    if not (labels or fields or prefix):
        return None

    def matches(stored: Stored) -> bool:
        if not stored.key.startswith(prefix) or (labels and not labels(stored.labels)):
            return False
        if not fields:
            return True
        manifest = stored.manifest()
        return all(term(manifest) for term in fields)

    return matches


def get(store: Store, target: Target) -> bytes:
    """Return the JSON of an object; 404 if it does not exist."""
    found = store.collections[target.resource].objects.get(target.key)
    if found is None:
        raise not_found(target.resource, target.name)
    return opened(target.resource, found.body) + b"\n"


def revision_of(query: Query) -> int | None:
    """Return the resourceVersion of a query, None if unset."""
    text = query.get("resourceVersion", "")
    if text and not text.isdecimal():
        raise bad_request(f'invalid resource version: resourceVersion: Invalid value: "{text}"')
    return int(text) if text else None


class Page(NamedTuple):
    """The part of a collection that a list requests."""

    revision: int | None
    """None: the newest state."""
    start: str
    limit: int | None


def page_of(store: Store, query: Query) -> Page:
    """Parse a query; 400 or 422 for parameters that exclude each other, 504 for a future revision."""
    limit_text, token = query.get("limit", "0"), query.get("continue", "")
    if not limit_text.removeprefix("-").isdecimal():
        raise bad_request(f'limit: Invalid value: "{limit_text}"')
    limit = int(limit_text) if int(limit_text) > 0 else None
    revision, match = revision_of(query), query.get("resourceVersionMatch", "")
    if "sendInitialEvents" in query:
        raise invalid("sendInitialEvents is forbidden for list")
    if match and revision is None:
        raise invalid("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match and token:
        raise invalid("resourceVersionMatch is forbidden when continue is provided")
    if match not in ("", "Exact", "NotOlderThan"):
        raise invalid(f'resourceVersionMatch: Unsupported value: "{match}"')
    if match == "Exact" and revision == 0:
        raise invalid('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if token:
        if revision:
            raise bad_request("specifying resource version is not allowed when using continue")
        then, start = _read_token(token)
        return Page(None if then < 0 else then, start, limit)
    if revision and revision > store.revision:
        raise too_large(revision, store.revision)
    if revision == 0:
        return Page(None, "", None)
    exact = match == "Exact" or (limit is not None and not match)
    return Page(revision if exact else None, "", limit)


def list_objects(store: Store, target: Target, query: Query) -> bytes:
    """Return the JSON of a list or a page; 410 if its revision is compacted."""
    matches = matcher(target, query)
    selective = "labelSelector" in query or "fieldSelector" in query
    resource = target.resource
    with store.lock:
        page = page_of(store, query)
        revision = store.revision if page.revision is None else page.revision
        try:
            objects, keys = store.collections[resource].at(revision)
        except ApiError:
            if not query.get("continue"):
                raise expired("The resourceVersion for the provided list is too old.") from None
            raise expired(_CONTINUE_TOO_OLD, _write_token(-1, page.start)) from None
        first, last = bisect_left(keys, page.start), len(keys)
        if target.namespace:
            first = max(first, bisect_left(keys, f"{target.namespace}/"))
            last = bisect_left(keys, f"{target.namespace}0")  # the character after the slash
        bodies: list[bytes] = []
        token, remaining = "", 0
        if matches is None and page.limit is None:
            bodies = [objects[key].body for key in keys[first:last]]
            first = last
        for index in range(first, last):
            if page.limit is not None and len(bodies) == page.limit:
                token, remaining = _write_token(revision, keys[index - 1] + "\0"), last - index
                break
            found = objects[keys[index]]
            if matches is None or matches(found):
                bodies.append(found.body)
    metadata: dict[str, object] = {"resourceVersion": str(revision)}
    if token:
        metadata["continue"] = token
        if not selective:
            metadata["remainingItemCount"] = remaining
    return b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}\n' % (
        resource.kind.encode(),
        resource.api_version.encode(),
        msgspec.json.encode(metadata),
        b",".join(bodies),
    )


_CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result: restart the list, "
    "or use the continue token of this answer, which continues at the present revision"
)


class _Token(msgspec.Struct):
    v: str
    rv: int
    start: str


def _write_token(revision: int, start: str) -> str:
    content = msgspec.json.encode(_Token("meta.k8s.io/v1", revision, start))
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, str]:
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        token = msgspec.json.decode(content, type=_Token)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise bad_request(f"continue key is not valid: {error}") from None
    return token.rv, token.start
