"""The desired state, the differences to it, and reports. Pure."""
