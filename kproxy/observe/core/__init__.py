"""Computes health and counters from the reports of rounds. Pure."""
