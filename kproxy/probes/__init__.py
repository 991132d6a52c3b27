"""Readiness probes. `core` contains the rules; the other modules open connections and run commands."""
