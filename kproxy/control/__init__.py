"""The control socket, over which a running kproxy sends its state to commands."""
