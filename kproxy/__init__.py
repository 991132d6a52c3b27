"""kproxy compiles Kubernetes Services into an nftables dataplane and keeps it true.

  sources -> decode -> ClusterState -> resolve -> Frontend -> compile -> Desired -> plan -> Transaction
  (effect)   |__________________________________ pure ________________________________________|  |
                                                                                       kernel (effect)

sources     manifests (files, folders and their changes), a cluster's API (list and watch)
decode      Kubernetes objects -> model; the only place that knows camelCase
standalone  what a cluster does for its nodes where there is none: selectors, allocation, probes; views
resolve     which endpoints a service port has, which frontends it shows
compile     frontends -> chains (constant) and elements of a few maps (all the data)
nft         the vocabulary: elements, the plan (a difference), its rendering as text, a fake kernel
kernel      netlink, libnftables, what the kernel holds now, this host's addresses
daemon      one loop that owns what is wanted and what the kernel holds; health, metrics
cli         one file per verb

A sync goes through it once. The daemon goes through it again for the services that changed, and sends
what that changes.

Rules and chains do not grow with the number of services; a service is only elements.
"""

__version__ = "0.1.0"
