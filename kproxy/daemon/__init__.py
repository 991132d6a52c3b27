"""`kproxy run`: the event loop, signals, and the tasks that watch the kernel."""
