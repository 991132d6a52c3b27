"""Stories of the cluster source, with the test double of the API server."""
