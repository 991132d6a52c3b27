"""Netfilter over netlink: reading and writing tables.

`core` packs and reads bytes, and needs no kernel. `socket` sends and receives them.
"""
