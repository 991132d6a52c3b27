"""What a cluster's control plane does, for a host that has none: selectors and allocation."""
