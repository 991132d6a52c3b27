"""kproxy compiles Kubernetes Services into an nftables dataplane and keeps it true.

  sources -> decode -> ClusterState -> resolve -> Frontend -> compile -> Desired -> plan -> Transaction
  (effect)   |__________________________________ pure ________________________________________|  |
                                                                                       kernel (effect)

sources     read manifests (files, folders, standard input)
decode      Kubernetes objects -> model; the only place that knows camelCase
standalone  what a control plane does where there is none: selectors, allocation
resolve     which endpoints a service port has, which frontends it shows
compile     frontends -> chains (constant) and elements of a few maps (all the data)
nft         the vocabulary: elements, the plan (a difference), its rendering as text, a fake kernel
kernel      netlink, libnftables, what the kernel holds now, this host's addresses
cli         one file per verb

Rules and chains do not grow with the number of services; a service is only elements.
"""

__version__ = "0.1.0"
