"""BLAKE2b comes from CPython's own module, or from hashlib where that is missing."""

from __future__ import annotations

import hashlib
import runpy
import sys

import pytest

from kproxy import digest


def test_the_hash_is_that_of_hashlib(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hashlib.blake2b(b"kproxy", digest_size=8).digest()
    assert digest.blake2b(b"kproxy", digest_size=8).digest() == expected
    monkeypatch.setitem(sys.modules, "_blake2", None)
    elsewhere = runpy.run_path(digest.__file__)["blake2b"]
    assert elsewhere is hashlib.blake2b
