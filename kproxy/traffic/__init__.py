"""The connections of Services at this moment, for `kproxy top` and `kproxy connections`."""
