"""The objects of a source as one value. Pure."""
