"""`python -m bench.probes`: the cost of readiness probes of many pods, and the delay of a detected failure.

Pods are loopback addresses of this machine, served by another process, or files for exec. Each run waits
until the probes are distributed over their period, measures the CPU time of the prober, and then lets some
pods fail at one moment. The time until `changed` is called is mostly the wait for the pod's next probe: about
half a period, and hardly more than one.

  measures.py  the pods, and the prober alone
  whole.py     the same pods as endpoints of Services, with a complete `kproxy run`
"""
