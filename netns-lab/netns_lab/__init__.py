"""A network of namespaces for tests, and for playing by hand.

    topology ---> lab ---------------------------> probe
    (data)        |-- netns     enter, make, remove one network namespace
                  |-- mntns     the same of a pod's files
                  |-- wire      its links, addresses, routes (pyroute2)
                  |-- registry  which labs this host has; removing them
                  '-- serve     one process: the pods' HTTP and UDP servers (http: its pure part)

``linux`` and ``processes`` are what these are made of: the kernel's calls, and
the end of what runs.

``topology`` says what there is, ``Lab`` in ``lab`` brings it up and takes it
down, ``probe`` holds the clients a test asks with, ``manifests`` says the pods
as Kubernetes would, and ``cli`` is ``netns-lab``. The package knows nothing of
what is being tested in it.
"""
