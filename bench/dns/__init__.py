"""What an answer of `kproxy dns serve` costs, with few and with many Services, next to unbound."""
