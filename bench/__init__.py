"""`make bench`: the cost of kproxy with 100, 1,000 and 10,000 Services, and of a peer in the same run.

  samples -> manifests -> kproxy, as complete processes (process.py) and as one that stays (change.py)
          -> peer      -> nft -f: the same Services in the form of kube-proxy 1.36

`kproxy run` has a separate table (daemon/), and so have packets (traffic/), readiness probes (probes/),
DNS answers (dns/), Ingresses (gateway/), containers (containers.py) and refused connections (refusals.py).

Every measurement runs in a new network namespace, which ends with the thread that created it. So nothing is
left behind. Compare ratios within one run only: machines differ.
"""
