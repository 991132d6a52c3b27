"""kproxy compiles Kubernetes Services into an nftables dataplane, and keeps it up to date.

docs/architecture.md draws the rooms and what each may import.
"""

__version__ = "0.1.0"
INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 plus the number of SIGINT, as in shells."""
