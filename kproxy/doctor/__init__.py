"""`kproxy doctor`: looks for the causes of a Service that does not answer. README.md has the map."""
