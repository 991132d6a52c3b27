"""From readings of counters to the lines of a screen. Pure."""
