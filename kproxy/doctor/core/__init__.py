"""The causes that the doctor knows, and how it recognizes them in facts. Pure."""
