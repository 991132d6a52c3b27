"""Containers of podman and docker as pods."""
