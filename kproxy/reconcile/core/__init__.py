"""The differences of structure, what the kernel refused, and reports. Pure."""
