"""Netlink's bytes: constants, messages, elements, batches. Pure."""
