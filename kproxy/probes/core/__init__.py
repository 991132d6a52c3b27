"""Whether a pod is ready, by the results of its probes. Pure."""
