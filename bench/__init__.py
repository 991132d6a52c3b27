"""`make bench`: what kproxy costs at 100, 1,000 and 10,000 services, and a peer in the same run.

  samples -> manifests -> kproxy, whole processes (process.py) and one that stays (change.py)
          -> peer      -> nft -f: the same services in the shape that kube-proxy 1.36 gives them

`kproxy run` has a table of its own (daemon/), and what packets pay, too (traffic/).

Every measurement is made in a network namespace of its own, which ends with the thread that
made it: nothing is left behind, whatever happens. Quote ratios within one run: machines differ.
"""
