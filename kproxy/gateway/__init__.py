"""Ingress and HTTP routes, served by HAProxy. README.md describes the folder."""
