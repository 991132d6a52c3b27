"""`python -m tests.apiserver`: the server as a separate process, which prints its address first.

SIGTERM and SIGINT stop it. HTTP requests control it: see `control`.
"""

from __future__ import annotations

import argparse
import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.manifests import manifests
from bench.samples import ENDPOINTS, samples
from tests.apiserver import ApiServer
from tests.apiserver.certificates import Authority
from tests.apiserver.control import control
from tests.apiserver.kubeconfig import client_certificate, token, write_kubeconfig
from tests.apiserver.resources import BY_KIND, Manifest


def services(count: int, endpoints: int) -> Iterator[Manifest]:
    """Yield the Services and EndpointSlices of `make bench`."""
    for sample in samples(count, endpoints):
        yield from manifests([sample])["items"]


def read(file: Path) -> Iterator[Manifest]:
    """Yield the objects of a YAML or JSON file, including those in Lists; only of the supported kinds."""
    with file.open() as stream:
        for document in yaml.load_all(stream, yaml.CSafeLoader):
            items = document["items"] if document and document["kind"] == "List" else [document]
            yield from (item for item in items if item and item["kind"] in BY_KIND)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.apiserver", description=__doc__)
    parser.add_argument("--objects", metavar="FILE", type=Path, action="append", default=[])
    parser.add_argument("--services", metavar="N", type=int, default=0)
    parser.add_argument("--endpoints", metavar="N", type=int, default=ENDPOINTS, help="of each Service")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--tls", metavar="FOLDER", type=Path, help="use https; write certificates there")
    parser.add_argument("--token", action="append", default=[], help="require one of these tokens")
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="write a kubeconfig")
    arguments = parser.parse_args()

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    authority = Authority(arguments.tls) if arguments.tls else None
    with ApiServer(
        host=arguments.host, port=arguments.port, tls=authority, tokens=arguments.token, control=control
    ) as api:
        api.load(services(arguments.services, arguments.endpoints))
        for file in arguments.objects:
            api.load(read(file))
        if arguments.kubeconfig:
            user = token(arguments.token[0]) if arguments.token else {}
            if authority and not user:
                user = client_certificate(authority.client())
            ca = authority.certificate if authority else None
            write_kubeconfig(arguments.kubeconfig, api.url, user, ca=ca)
        api.prepare()
        gc.freeze()
        print(api.url, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
