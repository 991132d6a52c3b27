"""A test double of the Kubernetes API server: what clients of list and watch meet.

  resources     which kinds there are, and what a path names
  selectors     label and field selectors
  status        errors, as the Status objects of the API
  store         objects, one counter of revisions, a window of history: what etcd and the watch cache are
  reads         get and list: what a resourceVersion, a limit and a continue token ask for
  events        the lines of a watch, and where it begins
  watches       watches that are open
  writes        create, update, patch, delete
  http          a connection, by h11
  faults        what goes wrong on demand
  access        who may do what: bearer tokens, client certificates
  listener      the thread, the port and its connections
  server        all of it, with the methods that tests call
  control       the same by HTTP, for a server that is a process of its own (`python -m tests.apiserver`)
  certificates, kubeconfig    files that a client is given
  proxy         an HTTP proxy on the way, for a kubeconfig's proxy-url
  relay         a way to any server, for what happens on ways
  own           a namespace of a test's own, in this server or a real one
  client        a plain client, for tests of this package and for stories that write through HTTP

The semantics are those of kube-apiserver with its watch cache. What both do alike is written down in
test_lists.py, test_watches.py and test_writes.py: these run against a real server, too (`make test-cluster`).
A real server differs in this, and no test may rest on it:

- Objects are not validated and get no defaults: no ClusterIP is allocated, no targetPort filled in. Only
  metadata (uid, creationTimestamp, resourceVersion) is completed; there are no managedFields, generations,
  finalizers, graceful deletion, owners or garbage collection. A namespace need not exist.
- JSON only: no protobuf, no CBOR, no tables, no metadata-only objects. HTTP/1.1 only: a real server offers
  HTTP/2 to TLS clients that ask for it.
- PATCH is a JSON merge patch (RFC 7386): no strategic merge, no JSON patch, no server-side apply, no dry run.
- No deletecollection, no watch-list, and of the subresources only status.
- A client certificate of a foreign authority fails the handshake; a real server answers 401.
- Bookmarks come every minute by default and two seconds before a timeout, as there, but at exact times. They
  always know the newest revision. A real server's know it where etcd tells of its progress every few seconds
  (as kubeadm sets it up); where it does not, there is none before something of the kind has changed.
- A list that may not be older than a revision of the future is 504 at once, not after three seconds. Get does
  not look at resourceVersion.
- Revisions count by one for each write; a real etcd also counts leases, events and other resources.
- History is a window of so many changes. A real server's watch cache remembers for a minute or more, and
  forgets when it starts again; compacting etcd is nothing to it while it runs.
- No priority and fairness: 429 comes only on demand.
"""

from tests.apiserver.server import ApiServer as ApiServer
