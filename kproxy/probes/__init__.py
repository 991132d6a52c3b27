"""Readiness probes. `core` decides; the rest opens connections and runs commands."""
