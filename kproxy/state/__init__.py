"""The state directory, which outlives kproxy's processes, and its lock."""
