"""Services as pictures: what leads where. Pure."""
