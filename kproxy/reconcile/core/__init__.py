"""What is wanted, what differs, and what was done. Pure."""
