"""BLAKE2b, the hash from which places in ranges, scores of nodes and keys of texts are derived.

hashlib also loads OpenSSL, which takes a fortieth of the time of a small sync. So this imports the module of
CPython that hashlib uses, as Python's own random.py does for another hash.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # not CPython
    from hashlib import blake2b

__all__ = ["blake2b"]
