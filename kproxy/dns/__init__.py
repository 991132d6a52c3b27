"""DNS for the Services of this host: names that change in the same round as the kernel's tables."""
