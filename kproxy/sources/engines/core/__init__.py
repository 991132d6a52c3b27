"""What a container engine says, as manifests of pods. Pure."""
