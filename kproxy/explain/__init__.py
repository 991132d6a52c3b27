"""Explains what the tables do with a connection, before a packet is sent. Pure."""
