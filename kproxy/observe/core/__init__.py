"""Health and counters, worked out from what the loop reports. Pure."""
