"""One loop that owns the state and the kernel's tables: what `kproxy run` is made of."""
