"""How kproxy takes in what other parties send: their turns in the event loop, and their connections."""
