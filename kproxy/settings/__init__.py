"""Every flag and configuration field, read once."""
