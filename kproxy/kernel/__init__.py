"""Effects on this host: netlink, what the kernel holds, this host's addresses."""
