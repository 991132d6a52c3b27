"""Brings the kernel to the desired state, in rounds: one for `sync`, and a loop of them for `run`."""
