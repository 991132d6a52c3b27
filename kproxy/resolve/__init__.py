"""Services and EndpointSlices -> frontends with their endpoints. Pure."""
