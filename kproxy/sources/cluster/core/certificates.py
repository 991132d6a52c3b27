"""The period of validity of X.509 certificates (RFC 5280, section 4.1).

OpenSSL verifies certificates, but Python's interface to it does not say when a client certificate ends. Only
the first fields of a certificate are read, and nothing is verified.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE, INTEGER, UTC_TIME, GENERALIZED_TIME, VERSION = 0x30, 0x02, 0x17, 0x18, 0xA0
"""Tags of DER."""
MOST_CERTIFICATES = 20


class Validity(NamedTuple):
    """When a certificate is valid. Both times are RFC 3339 in UTC, so they can be compared as texts."""

    begins: str
    ends: str


def validities(pem: bytes) -> list[Validity]:
    """Return the periods of the certificates in a PEM file. Those that cannot be read are left out."""
    found = []
    for match in list(_PEM.finditer(pem))[:MOST_CERTIFICATES]:
        try:
            found.append(_validity(a2b_base64(match[1])))
        except (ValueError, IndexError):
            continue
    return found


def _validity(der: bytes) -> Validity:
    """Read Certificate { TBSCertificate { [version], serial, signature, issuer, Validity, ... } ... }."""
    (_, certificate), *_ = _fields(der)
    (_, signed), *_ = _fields(certificate)
    fields = [content for tag, content in _fields(signed) if tag != VERSION]
    begins, ends = _fields(fields[3])
    return Validity(_time(*begins), _time(*ends))


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return tag and content of each field. Raises IndexError if one is incomplete."""
    position = 0
    while position < len(data):
        tag, length, position = data[position], data[position + 1], position + 2
        if length & 0x80:
            size = length & 0x7F
            length, position = int.from_bytes(data[position : position + size], "big"), position + size
        if position + length > len(data):
            raise IndexError
        yield tag, data[position : position + length]
        position += length


def _time(tag: int, content: bytes) -> str:
    """Return a time, for example `260102030405Z`, as RFC 3339. Raises ValueError."""
    digits = content.decode("ascii").removesuffix("Z")
    if tag == UTC_TIME:  # two digits of the year: 1950 to 2049
        digits = ("19" if digits >= "50" else "20") + digits
    if len(digits) != 14 or not digits.isdecimal():
        raise ValueError(digits)
    parts = [digits[:4], *(digits[start : start + 2] for start in range(4, 14, 2))]
    return "{}-{}-{}T{}:{}:{}Z".format(*parts)
