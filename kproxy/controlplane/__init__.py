"""What an API server, its controllers and a kubelet do, for a host that has none. Pure."""
