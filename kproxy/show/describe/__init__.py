"""One object at length, as `kubectl describe` shows it. Pure."""
