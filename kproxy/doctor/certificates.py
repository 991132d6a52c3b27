"""Reads when the certificates expire that kproxy and the API server identify themselves with."""

from __future__ import annotations

from pathlib import Path

from kproxy.doctor.core.facts import Certificate
from kproxy.doctor.core.objects import Objects
from kproxy.sources.cluster.core.certificates import validities
from kproxy.sources.cluster.credentials import Credentials


def read_certificates(objects: Objects) -> tuple[Certificate, ...]:
    """Return the certificates of the credentials that the running kproxy uses. Raises CredentialsError."""
    if not objects.snapshot.credentials:
        return ()
    found = Credentials.of(Path(objects.snapshot.credentials)).certificates()
    return tuple(Certificate(name, *period) for name, pem in found for period in validities(pem))
