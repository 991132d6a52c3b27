"""Objects as kubectl shows them: tables, manifests, descriptions. Pure."""
