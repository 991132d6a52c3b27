"""The work of an API server, its controllers and a kubelet, for a host without a cluster. Pure."""
