"""A test double of the Kubernetes API server, for clients that list and watch.

  resources     the kinds, and the meaning of paths
  selectors     label and field selectors
  status        errors, as Status objects of the API
  store         objects, a revision counter, a window of history: simulates etcd and the watch cache
  reads         get and list, with resourceVersion, limit and continue token
  events        the lines of a watch, and its start
  watches       open watches
  writes        create, update, patch, delete
  http          a connection, with h11
  faults        faults on demand
  access        authentication and authorization: bearer tokens, client certificates, denials
  listener      the thread, the port and its connections
  server        the whole server, with the methods that tests call
  control       the same methods through HTTP, for a separate process (`python -m tests.apiserver`)
  certificates, kubeconfig    files for clients
  proxy         an HTTP proxy between client and server, for a kubeconfig's proxy-url
  relay         a TCP relay to any server, which causes network faults
  own           a separate namespace for a test, in this server or a real one
  client        a plain client, for tests of this package and for stories that write through HTTP

The semantics are those of kube-apiserver with its watch cache. test_lists.py, test_watches.py and
test_writes.py contain the common behaviour: they also run against a real server (`make test-cluster`). A real
server differs in the following. No test may depend on these points:

- Objects are not validated and get no defaults: no ClusterIP is allocated, no targetPort filled in. Only
  metadata (uid, creationTimestamp, resourceVersion) is completed; there are no managedFields, generations,
  finalizers, graceful deletion, owners or garbage collection. A namespace need not exist.
- JSON only: no protobuf, no CBOR, no tables, no metadata-only objects. HTTP/1.1 only: a real server offers
  HTTP/2 to TLS clients that ask for it.
- PATCH is a JSON merge patch (RFC 7386): no strategic merge, no JSON patch, no server-side apply, no dry run.
- No deletecollection, and of the subresources only status.
- Streamed lists (`sendInitialEvents`) follow the page "API concepts" of Kubernetes' documentation: ADDED
  events of all objects, then a bookmark with the annotation `k8s.io/initial-events-end`, if bookmarks are
  allowed. `resourceVersionMatch=NotOlderThan` is required (422), and so is the feature (`ApiServer.streams`;
  422 without it). By the defaults of that feature, a watch without resourceVersion also gets the bookmark. A
  real server may send changes before the bookmark; here, everything before it is of one revision.
- A client certificate of an unknown authority fails the handshake; a real server answers 401.
- As in a real server, bookmarks are sent every minute by default and two seconds before a timeout, but here
  at exact times. They always contain the newest revision. A real server knows the newest revision if etcd
  reports its progress every few seconds (kubeadm configures this). Without these reports, it sends no
  bookmark before an object of the kind has changed.
- A list with a future resourceVersion is 504 immediately, not after three seconds. Get ignores
  resourceVersion.
- Revisions grow by one for each write; a real etcd also counts leases, events and other resources.
- History is a window of a fixed number of changes. A real server's watch cache keeps a minute or more, and
  loses it with a restart; compaction of etcd does not affect it.
- No priority and fairness: 429 is sent only on demand.
"""

from tests.apiserver.server import ApiServer as ApiServer
