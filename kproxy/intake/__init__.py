"""How kproxy takes in what other parties send: turns, connections, responses over HTTP, and memory."""
