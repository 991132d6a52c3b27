"""`python -m bench.api`: what a start and 1,000 changes cost an API server, in requests and bytes.

  relay.py     a TCP relay that counts bytes and connections
  subjects.py  kproxy, and a kube-proxy if there is one, as processes
  sizes.py     the sizes of the same objects in protobuf, which kube-proxy requests
  __main__.py  the measurements and the table

The API server is the double of the tests. Its CPU time says nothing about a real server's, so it is not
measured. Everything runs in a new network namespace, which ends with it.
"""
