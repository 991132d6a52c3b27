"""`python -m bench.api`: what clients cost an API server, in requests, bytes and CPU time.

  relay.py     a TCP relay that counts bytes and connections
  clients.py   many clients with the requests of kproxy or kube-proxy
  load.py      the CPU time of a real API server for them
  __main__.py  the measurements and the tables

The API server is the double of the tests, or a real one (`--assets`). The CPU time of the double says nothing
about a real server's, so it is not measured. Everything runs in a new network namespace, which ends with it.
"""
