"""Frontends -> the chains that are constant, and the elements that are all the data. Pure."""
