"""Stories of the cluster source, told with the test double of the API server."""
