"""Many clients that send the requests of kproxy or kube-proxy with curl, and discard what they receive.

A server cannot tell them from the programs. They need little CPU time, so many fit on the server's machine.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from bench.daemon.subject import NODE
from bench.process import Failed
from kproxy.sources.cluster.core.formats import JSON, PROTOBUF
from kproxy.sources.cluster.core.resources import (
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    ApiResource,
    node_resource,
)
from kproxy.sources.cluster.core.streamed import QUERY
from tests.controlplane import ADMIN

SECONDS = 3000
"""The duration of a watch."""


class Kind(NamedTuple):
    """How a program requests objects."""

    name: str
    http: str
    """curl's flag for the version of HTTP."""
    accept: str
    resources: tuple[ApiResource, ...]
    watches: bool = True
    """False: requests complete lists, and ends."""


FIRST_PROTOBUF = f"{PROTOBUF},{JSON}"
FOLLOWED = (SERVICES, SLICES, node_resource(NODE), SERVICE_CIDRS)
PROXIED = SERVICES._replace(
    selector={
        "labelSelector": "!service.kubernetes.io/service-proxy-name",
        "fieldSelector": "spec.clusterIP!=None",
    }
)
KPROXY = Kind("kproxy: protobuf, HTTP/1.1", "--http1.1", FIRST_PROTOBUF, FOLLOWED)
KUBE_PROXY = Kind("kube-proxy: protobuf, HTTP/2", "--http2", FIRST_PROTOBUF, (PROXIED, *FOLLOWED[1:]))
OTHER = Kind("JSON, HTTP/1.1", "--http1.1", JSON, FOLLOWED)
LISTED = Kind("JSON, HTTP/1.1, lists in gzip", "--http1.1", JSON, FOLLOWED, watches=False)
KINDS = (KPROXY, KUBE_PROXY, OTHER, LISTED)


@contextmanager
def following(
    kind: Kind, number: int, port: int, certificate: Path, version: str = ""
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start so many clients of 127.0.0.1:`port`, and end them. Raises Failed if one has ended by itself.

    With a `version` they watch from there. Without, their watches begin with the list.
    """
    command = ["curl", "--silent", "--show-error", "--no-progress-meter", "--fail", "--fail-early"]
    command += ["--parallel", kind.http, "--user-agent", "bench"]  # lists for curl would be indented
    command += ["--cacert", str(certificate), "--header", f"Authorization: Bearer {ADMIN}"]
    command += ["--header", f"Accept: {kind.accept}", "--header", "Accept-Encoding: gzip"]
    begin = {"resourceVersion": version} if version else QUERY
    watch = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(SECONDS), **begin}
    query = watch if kind.watches else {}
    for resource in kind.resources:
        url = f"https://127.0.0.1:{port}{resource.path}?{urlencode({**query, **resource.selector})}"
        command += ["--output", "/dev/null", url]
    started = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield started
        if any(process.poll() not in ({None} if kind.watches else {None, 0}) for process in started):
            raise Failed(f"{kind.name}: a client has ended")
    finally:
        for process in started:
            process.kill()
            process.wait()
