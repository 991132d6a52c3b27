"""Netfilter over netlink, for operations that must be fast: changing and reading elements.

libnftables loads rules and declarations (kernel/libnftables.py). `core` packs and reads bytes, and needs no
kernel. `socket` sends and receives them.
"""
