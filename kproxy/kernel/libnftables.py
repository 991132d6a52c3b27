"""libnftables through the distribution's Python binding: rules and declarations, as text.

Its JSON form has no word for map updates, so text it is.
"""

from __future__ import annotations

from typing import Any

from kproxy.problems import HostError, TransactionError

INSTALL = "On Debian: apt install nftables python3-nftables"


def _context() -> Any:
    try:
        import nftables  # the binding opens the library when it is imported or made
    except ImportError:
        raise HostError("The Python binding of libnftables is missing.", INSTALL) from None
    try:
        return nftables.Nftables()
    except (OSError, AttributeError) as error:
        raise HostError(f"libnftables cannot be used: {error}.", INSTALL) from None


def check() -> None:
    """HostError if the binding or the library is missing."""
    _context()


def run(script: str) -> str:
    """Run an nft script as one transaction in the thread's network namespace; what it printed.

    TransactionError carries nft's messages and the script; nothing of it was applied then.
    """
    code, output, errors = _context().cmd(script)
    if code:
        first = errors.strip().splitlines()[0] if errors.strip() else f"exit code {code}"
        raise TransactionError(f"nft refused a change of the table: {first}", transaction=script)
    return str(output)
