"""What outlives a process: the state directory, and its lock."""
