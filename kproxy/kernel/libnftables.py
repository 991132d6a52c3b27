"""libnftables through the distribution's Python binding, with rules and declarations as text.

Its JSON format cannot express updates of maps.
"""

from __future__ import annotations

from typing import Any

from kproxy.problems import HostError, TransactionError

INSTALL = "On Debian: apt install nftables python3-nftables"


def _context() -> Any:
    try:
        import nftables  # opens the library at the import, or at Nftables()
    except ImportError:
        raise HostError("The Python binding of libnftables is missing.", INSTALL) from None
    try:
        return nftables.Nftables()
    except (OSError, AttributeError) as error:
        raise HostError(f"libnftables cannot be used: {error}.", INSTALL) from None


def check() -> None:
    """Raise HostError if the binding or the library is missing."""
    _context()


def run(script: str) -> str:
    """Run an nft script as one transaction in the thread's network namespace. Returns its output.

    Raises TransactionError with nft's message and the script; nothing is applied in this case.
    """
    code, output, errors = _context().cmd(script)
    if code:
        first = errors.strip().splitlines()[0] if errors.strip() else f"exit code {code}"
        raise TransactionError(f"nft rejected a change of the table: {first}", transaction=script)
    return str(output)
