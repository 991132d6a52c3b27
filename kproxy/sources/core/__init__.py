"""What a source knows, as one value. Pure."""
