"""Effects on this host: netlink, libnftables, what the kernel holds, this host's addresses."""
