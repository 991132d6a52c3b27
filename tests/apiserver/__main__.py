"""`python -m tests.apiserver`: the server as a process of its own; the first line is its address.

It ends with SIGTERM or SIGINT. What it is to do meanwhile it is told by HTTP: see `control`.
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
    """The Services and EndpointSlices of `make bench`, one after another."""
    for sample in samples(count, endpoints):
        yield from manifests([sample])["items"]


def read(file: Path) -> Iterator[Manifest]:
    """The objects of a YAML or JSON file, those of Lists, too; only of kinds that are served."""
    with file.open() as stream:
        for document in yaml.load_all(stream, yaml.CSafeLoader):
            items = document["items"] if document and document["kind"] == "List" else [document]
            yield from (item for item in items if item and item["kind"] in BY_KIND)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.apiserver", description=__doc__)
    parser.add_argument("--objects", metavar="FILE", type=Path, action="append", default=[])
    parser.add_argument("--services", metavar="N", type=int, default=0)
    parser.add_argument("--endpoints", metavar="N", type=int, default=ENDPOINTS, help="behind each service")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--tls", metavar="FOLDER", type=Path, help="https; certificates are written there")
    parser.add_argument("--token", action="append", default=[], help="only who has one is served")
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="write one")
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
        gc.freeze()
        print(api.url, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
