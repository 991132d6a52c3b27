"""How kproxy takes in what other parties send: turns, files, connections, responses over HTTP, and memory."""
