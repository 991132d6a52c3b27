"""kproxy compiles Kubernetes Services into an nftables dataplane, and keeps it up to date.

docs/architecture.md draws the rooms and what each may import.
"""

__version__ = "0.1.0"
