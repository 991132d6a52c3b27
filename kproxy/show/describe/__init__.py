"""Describes objects as `kubectl describe` does. Pure."""
