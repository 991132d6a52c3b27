"""`python -m bench.daemon`: what `kproxy run` costs beside an API server.

  server.py   the API server's double (tests/apiserver) as a process, and what it is told to change
  real.py     kube-apiserver and etcd, if they are given, instead of it
  subject.py  kproxy as a process: when it is ready, what CPU and memory it took
  kernel.py   those who look on: one asks for an element again and again, one is told of each commit
  measures.py what is measured, in which order

Times end when the kernel has an element, not when kproxy says so. All of it is in a network namespace
of its own, and ends with it.
"""
