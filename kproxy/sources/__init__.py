"""Sources of Kubernetes objects: manifests and the API of a cluster. They read files and use the network."""
