"""Looks at DNS: asks the servers of the cluster, and reads the resolv.conf of pods and of this host."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from kproxy.doctor.core.facts import Names
from kproxy.doctor.core.names import PORT, dns_servers
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.host import resolv_conf
from kproxy.kernel.pod_namespaces import resolv_confs
from kproxy.model import Address, format_address

SECONDS = 1.0
"""How long to wait for a reply. A query is sent twice, because datagrams may be lost."""
TRIES = 2
MOST_SERVERS = 4
ANY_NAME = "kubernetes.default.svc.cluster.local."
"""A name for a question of which any answer will do."""


def read_names(file: Path, objects: Objects) -> Names:
    """Return what DNS does. `file` is the resolv.conf of this host."""
    servers = {server: _failure(server) for server in dns_servers(objects.snapshot)[:MOST_SERVERS]}
    if not servers:
        return Names({}, {})
    here = {address for pod in objects.inventory.pods if not pod.host_network for address in pod.addresses}
    pods = {}
    if os.geteuid() == 0:
        with suppress(OSError):  # without the right to look into pods, nothing is known of them
            pods = resolv_confs(here)
    return Names(servers, pods, next(map(partial(_of_host, file), _name(objects)), ""))


def _name(objects: Objects) -> Iterator[str]:
    """Return the name of the Service in question, if there is one, and kproxy serves its name."""
    domain = objects.snapshot.cluster_domain
    if objects.only is not None and domain and objects.snapshot.options.name_servers:
        for service in objects.served:
            yield f"{service.name.name}.{service.name.namespace}.svc.{domain}."


def _of_host(file: Path, name: str) -> str:
    """Return why the first server in the resolv.conf of this host does not find a name; "" if it does."""
    for server in resolv_conf(file).servers[:1]:
        status = _ask(server, name)
        return "" if status == "NOERROR" else f"{format_address(server)} (in {file}): {status}"
    return f"{file} names no server"


def _failure(server: Address) -> str:
    status = _ask(server, ANY_NAME)
    return "" if status in ("NOERROR", "NXDOMAIN") else status


def _ask(server: Address, name: str) -> str:
    """Return the status of the reply to a question for any address, or why there is none."""
    import dns.exception  # not at the top: it takes 9 MB
    import dns.message
    import dns.query
    import dns.rcode

    query = dns.message.make_query(name, "A")
    why = ""
    for _ in range(TRIES):
        try:
            reply = dns.query.udp(query, format_address(server), timeout=SECONDS, port=PORT)
            return dns.rcode.to_text(reply.rcode())
        except dns.exception.Timeout:
            why = f"no answer in {SECONDS:g} s"
        except OSError as error:
            number = error.errno or errno.EIO
            why = os.strerror(number) if not isinstance(error, socket.gaierror) else str(error)
        except dns.exception.DNSException as error:
            why = f"its answer cannot be read: {error}"
    return why
