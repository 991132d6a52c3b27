"""A network of namespaces, for tests and experiments.

    topology ---> lab ---------------------------> probe
    (data)        |-- netns     enter, make and remove a network namespace
                  |-- mntns     the same for the mount namespace of a pod
                  |-- wire      links, addresses and routes (pyroute2)
                  |-- registry  the labs of this host, and their removal
                  '-- serve     one process: the pods' HTTP and UDP servers (http: its pure part)

    following ---> lab
    |-- documents     files of manifests
    |-- workloads     which pods they want (images: how a container acts)
    |-- external      the hosts that they name as endpoints
    '-- surroundings  what a pod gets from its cluster

``linux`` and ``processes`` are the basis of these: the kernel's calls, and the end
of processes.

``topology`` describes a lab as data, ``Lab`` in ``lab`` creates and removes it,
``probe`` contains the clients of tests, ``manifests`` makes Kubernetes objects of
the pods, and ``cli`` is the command ``netns-lab``. The package does not depend on
what is tested in it.
"""
