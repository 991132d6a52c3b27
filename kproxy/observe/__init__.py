"""Reports on the rounds of `kproxy run`: health, metrics, the log, and systemd."""
