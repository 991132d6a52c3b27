"""`python -m bench.daemon`: the cost of `kproxy run` with an API server.

  server.py   the double of the API server (tests/apiserver) as a process, and changes of its objects
  real.py     kube-apiserver and etcd instead of the double
  subject.py  kproxy as a process: when it is ready, its CPU time and memory
  kernel.py   observers of the kernel: one asks repeatedly for an element, one is notified of each commit
  measures.py the measurements, in order

A time ends when the kernel has an element, not when kproxy reports it. Everything runs in a new network
namespace, which ends with it.
"""
