"""What the API server sends, and what it last said of each object. Pure."""
