"""How kproxy takes in what other parties send: their turns, their connections, and responses over HTTP."""
