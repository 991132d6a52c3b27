"""Decoding of what the API server sends, and the cache of its objects. Pure."""
