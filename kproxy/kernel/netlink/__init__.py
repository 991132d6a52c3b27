"""Netfilter over netlink, for what has to be fast: elements in and out, dumps, one batch per transaction.

libnftables loads rules and declarations (kernel/libnftables.py). `core` packs and reads bytes, and needs no
kernel; `socket` sends and receives them.
"""
