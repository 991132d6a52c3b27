"""Flags and configuration fields, read once into typed settings."""
