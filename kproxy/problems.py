"""What can go wrong, in terms of what the user can do about it.

A `Problem` is about one object of the input: it is reported, that object is left
out and everything else goes on. A `KproxyError` stops the command: nothing of what
the kernel holds was changed by it, save what was committed before.
"""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with the input, named by file, object and field (any of which may be "")."""

    source: str
    object: str
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class KproxyError(Exception):
    """A sentence that says what is wrong, and `hint`: what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def full(self) -> str:
        """Both."""
        return f"{self} {self.hint}".rstrip()


class UsageError(KproxyError):
    """The command line asks for something that cannot be (exit status 2)."""


class HostError(KproxyError):
    """This host or this user cannot do it: not root, no nftables in the kernel, no libnftables."""


class StateError(KproxyError):
    """The state directory cannot be read, written or locked."""


class RefusedElement(NamedTuple):
    """An element that the kernel refused, and the kernel's own message, where it has one."""

    family: str
    """`ip` or `ip6`."""
    set: str
    """The set or map; "" if it is unknown."""
    key: bytes
    """As in the transaction; b"" if only the set is known."""
    message: str = ""
    owner: str = ""
    """`namespace/service:port` of the frontend that it belongs to; "" if unknown."""


class TransactionError(KproxyError):
    """The kernel refused a transaction; nothing of it was applied.

    `errno` is the kernel's (0 if libnftables gave only text), `transaction` what was sent, as text, and
    `refused` the elements that the kernel named.
    """

    def __init__(
        self,
        message: str,
        errno: int = 0,
        transaction: str = "",
        refused: tuple[RefusedElement, ...] = (),
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.transaction = transaction
        self.refused = refused
