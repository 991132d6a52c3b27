"""The socket of a running kproxy, by which commands ask what it holds."""
