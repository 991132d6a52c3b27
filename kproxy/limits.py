"""The limits of what kproxy reads from other parties, in one place. docs/security.md has `TABLE`.

kproxy reads bytes that authors of manifests, servers in pods, clients, an API server and DNS servers choose.
Each reader counts what it takes in, and gives up at a limit. Bytes are counted as they arrive, in TLS and
compressed.
"""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB = 1 << 10, 1 << 20

# --- files: manifests, the configuration, kubeconfigs ---

FILE_BYTES = 128 * MIB
YAML_BYTES = 32 * MIB
"""Parsing YAML takes 20 times as long as JSON of this size."""
FILE_SECONDS = 60
FILE_VALUES = 3_000_000
"""With as few bytes as possible, each needs 100 bytes of memory. Of usual objects, 128 MiB have as many."""
DOCUMENTS = 200_000
YAML_LEVELS = 5000
YAML_SPARE_VALUES = 100_000
YAML_LONG_TEXT = 100
"""The number of characters for which a text counts as another value."""
UNKNOWN_FIELDS = 50
PROBLEMS_OF_FILE = 50
LARGEST_RETRY_AFTER = 300
MESSAGE_CHARACTERS = 4000
PROBLEMS_LOGGED = 100

# --- one object, in a file or of an API server ---

OBJECT_ITEMS = 15_000
"""Kubernetes allows 1,000 endpoints and 100 ports of an EndpointSlice. Services for media streams have up to
10,000 ports. An item takes up to 20 us."""
OBJECT_VALUES = 500_000
"""Of JSON. A decoder in C skips or refuses as many in 0.1 s. In this time no other thread runs."""
OBJECT_NOTES = 10
"""An empty endpoint has two bytes, and the warning about it 300."""

# --- responses to readiness probes ---

PROBE_BYTES = 256 * KIB
PROBE_CHUNK = 4 * KIB
"""Bytes to read at once. So one turn takes a few milliseconds at most."""
PROBE_HEAD = 64 * KIB
PROBE_HEAD_LINES = 500
PROBE_INFORMATIONAL = 5
PROBE_BODY = 10 * KIB
PROBE_BODY_PIECES = 100
PROBE_REDIRECTS = 10
PROBE_CPU = 0.05
PROBE_COSTLY = 0.01
PROBE_COSTLY_SLOTS = 8
PROBE_COSTLY_SHARE = 0.1
PROBE_CONNECTIONS = 256
PROBE_COMMANDS = 32
PROBE_CONNECTIONS_SHARE = 0.2
PROBE_COMMANDS_SHARE = 0.04
"""A command needs about three files."""
PROBE_OUTPUT = 10 * KIB
PROBE_EVENTS = 4
PROBE_MESSAGE = 1024
"""As in an event of Kubernetes."""

# --- events of Services ---

EVENT_SECONDS = 3600
"""As in Kubernetes."""
EVENTS = 2000
EVENTS_OF_SERVICE = 16
EVENT_MESSAGE = 1024
EVENT_BYTES = MIB
EVENT_CHANGES = 500
"""It takes some milliseconds."""

# --- names of hosts in probes ---

NAME_LOOKUPS = 128
NAME_ADDRESSES = 8

# --- clients: health checks, metrics, the control socket ---

MAX_FILES = 1 << 20
SHARE_OF_FILES = 0.25
CONNECTIONS = 1024
CONNECTIONS_OF_LISTENER = 256
REQUEST_HEAD = 8 * KIB
"""Health checks need less than a tenth of it."""
FIRST_REQUEST_SECONDS = 10.0
REQUEST_SECONDS = 5.0
REQUEST_PAUSE = 0.2
"""No client of health checks or metrics sends more requests on one connection."""
RESPONSE_SECONDS = 10.0
IDLE_SECONDS = 90.0
"""Prometheus and load balancers send requests more often."""
RESPONSE_PIECE = 64 * KIB
SNAPSHOT_SECONDS = 30.0
DOCTOR_BYTES = 16 * MIB
"""A finding of each of ten thousand Services has 8 MiB."""
DOCTOR_SECONDS = 30.0

# --- credential plugins of a kubeconfig ---

PLUGIN_SECONDS = 60

# --- DNS ---

DNS_QUERY = 4 * KIB
"""A query has at most some hundred bytes."""
DNS_IDLE_SECONDS = 12.0
DNS_BATCH = 256
DNS_RECEIVE_BUFFER = 2 * MIB
"""The kernel doubles it, and counts 768 bytes for a query. So 5,400 queries fit."""
DNS_ERRORS = 50
DNS_NETWORKS = 4096
DNS_UPSTREAM_SECONDS = 1.5
DNS_UPSTREAM_TRIES = 2
DNS_UPSTREAM_QUERIES = 512
DNS_WAITING = 2048
DNS_WAITING_OF_CLIENT = 128
DNS_LONG_REPLIES = 16

# --- the kernel ---

NETLINK_SECONDS = 30
LIVE_CONNECTIONS = 200_000
NETLINK_DATAGRAMS = 200
"""It takes about 40 ms if another program loads a large set."""

# --- HTTP responses of API servers and container engines ---

CONNECT_SECONDS = 10.0
HEAD_SECONDS = 100.0
RESPONSE_HEAD = 64 * KIB
READ_BUFFER = MIB
"""About one page of a list."""

# --- responses of an API server ---

API_IDLE_SECONDS = 90.0
API_PAGE = 64 * MIB
"""Of usual objects, 500 have 5 MiB."""
API_PAGE_SECONDS = 300.0
API_VALUES = 2_000_000
API_OBJECT = 4 * MIB
"""etcd stores at most 1.5 MiB."""
API_OBJECTS = 200_000
API_INVALID = 5_000
"""Each needs as much memory and time as some valid ones."""
API_TEXT = 512 * MIB
API_PAGES_WITHOUT_NEWS = 100
API_ERROR = 64 * KIB
API_PIECE = 256 * KIB
API_DECODED_AT_ONCE = 100
API_TURN_SECONDS = 0.02
"""100 usual objects take 3 ms, and 100 of the largest 30 s."""
API_WATCH_GRACE = 60.0
API_STREAM_SECONDS = 60.0
API_STREAM_IDLE_SECONDS = 10.0
"""The server has the objects in memory, and sends a streamed list without pauses."""


# --- Services ---

SERVICE_FRONTENDS = 20_000
"""A round with them takes 0.9 s on two busy cores, and one with 100,000 takes 3.4 s. A Service of 95 kB can
have 4,000,000."""
SERVICE_SOURCES = 10_000
"""The kernel takes 3 s for 12,500 at one address, and 153 s for 100,000. Meanwhile no program of
the network namespace can change nftables."""
SERVICE_ENDPOINTS = 250_000
"""A round with them takes 2.7 s on two busy cores."""
LOST_FRONTENDS = 50


# --- container engines ---

ENGINE_BYTES = 32 * MIB
ENGINE_CONTAINERS = 10_000
ENGINE_EVENT = 64 * KIB
ENGINE_SECONDS = 10.0
ENGINE_REQUESTS = 8
ENGINE_KILL_SECONDS = 5.0

# --- HAProxy ---

GATEWAY_REPLY = 64 * MIB
"""The state of 100,000 servers has 10 MB."""
GATEWAY_SECONDS = 5.0
GATEWAY_START_SECONDS = 60.0
GATEWAY_DRAIN_SECONDS = 300
GATEWAY_METRICS = 16 * MIB


# --- gateway ---

CERTIFICATE_BYTES = 256 * KIB
CERTIFICATE_CHAIN = 10
GATEWAY_TEXT = 2048
GATEWAY_REGEX = 512
GATEWAY_REGEX_BYTES = 30_000
"""PCRE2 compiles a regular expression to at most 64 KiB."""
GATEWAY_ITEMS = 1000
GATEWAY_PASSWORD_SECONDS = 0.2
"""HAProxy does nothing else while it checks a password. bcrypt with cost 10 takes 0.1 s."""
GATEWAY_PASSWORDS_SECONDS = 10.0
"""HAProxy computes with each password at each start and check of its files."""
GATEWAY_COMBINATIONS = 20_000
"""A listener has 2048 with the most hostnames and matches that the CRD allows. Each takes 50 us."""


class Limit(NamedTuple):
    """A row of the table: what a limit is for, and what happens at it."""

    reader: str
    """The heading of the group of rows."""
    what: str
    value: float
    unit: str
    """bytes, s, % of a CPU; "" for a number of items."""
    then: str


_FILES = "Files and pipes, standard input"
_SERVER = "An API server"
_OBJECTS = "An object, in a file or of an API server"
_SHOWN = "The log and messages"
_ENGINES = "Container engines (`--pods-from`)"
_SERVICES = "Services, slices and Gateways"
_GATEWAY = "HAProxy (`--gateway`)"
_RELOAD = "HAProxy is reloaded"
_UNCHANGED = "a problem is reported, and the pods stay as they were"
_PROBES = "Responses to readiness probes"
_EVENTS = "Events of Services"
_OLDEST = "the oldest are forgotten"
_NAMES = "DNS answers for host names in probes"
_CLIENTS = "Clients of `/healthz`, `/metrics`, health check node ports and the control socket"
_DNS = "DNS clients"
_INGRESS = "Ingresses and HTTPRoutes"
_NOT_SERVED = "the route or the Ingress is not served, and named"
_SECRETS = "Secrets with certificates"
_DOCTOR = "`kproxy doctor`, run for the status page"
_HTTP = "Clients that speak HTTP"
_KERNEL = "The kernel"
_TURN = "other tasks of kproxy have their turn"
_API = "Responses of an API server"
_SMALLER = "kproxy keeps what it has, and requests smaller pages"
_PAGES = "kproxy keeps what it has, and requests pages"
_KEPT = "kproxy keeps what it has, and lists again later"
_CLOSED = "the connection is closed"
_FAILS = "the probe fails"

TABLE = (
    Limit(_FILES, "a file", FILE_BYTES, "bytes", "the file is a problem"),
    Limit(_FILES, "a file of YAML", YAML_BYTES, "bytes", "the file is a problem; write it as JSON"),
    Limit(_FILES, "values of a file or YAML document", FILE_VALUES, "", "it is a problem"),
    Limit(_FILES, "CPU time to parse a file", FILE_SECONDS, "s", "the file is a problem until it changes"),
    Limit(
        _FILES,
        "documents, or objects in Lists, of a file",
        DOCUMENTS,
        "",
        "the file or the List is a problem",
    ),
    Limit(_FILES, "levels of a YAML document", YAML_LEVELS, "", "the document is a problem"),
    Limit(
        _FILES,
        "values of a YAML document beyond one per character; each alias repeats its values",
        YAML_SPARE_VALUES,
        "",
        "the document is a problem",
    ),
    Limit(_FILES, "problems, and warnings, of a file", PROBLEMS_OF_FILE, "", "the others are counted"),
    Limit(_OBJECTS, "items of a list or a map", OBJECT_ITEMS, "", "the object is a problem"),
    Limit(_OBJECTS, "values in JSON", OBJECT_VALUES, "", "the object is a problem"),
    Limit(_OBJECTS, "weights in an annotation", OBJECT_ITEMS, "", "they are ignored"),
    Limit(_OBJECTS, "unknown fields, in a file", UNKNOWN_FIELDS, "", "the others are not reported"),
    Limit(_OBJECTS, "invalid parts, and warnings", OBJECT_NOTES, "", "the others are counted"),
    Limit(_SERVICES, "ports x addresses of a Service", SERVICE_FRONTENDS, "", "the Service is a problem"),
    Limit(
        _SERVICES,
        "ports x load-balancer addresses x source ranges of a Service",
        SERVICE_SOURCES,
        "",
        "the Service is a problem",
    ),
    Limit(
        _SERVICES,
        "endpoints of all frontends of a Service or Gateway together; weights and hashing repeat them",
        SERVICE_ENDPOINTS,
        "",
        "it is a problem, and what is programmed for it stays",
    ),
    Limit(_SERVICES, "frontends of a Service that others own", LOST_FRONTENDS, "", "the others are counted"),
    Limit(_SERVER, "`Retry-After`", LARGEST_RETRY_AFTER, "s", "it is shortened"),
    Limit(_SHOWN, "characters of a line", MESSAGE_CHARACTERS, "", "the line is cut"),
    Limit(_SHOWN, "new problems logged at the same time", PROBLEMS_LOGGED, "", "the others are counted"),
    Limit(
        _SHOWN,
        "Services with refused connections logged at the same time",
        PROBLEMS_LOGGED,
        "",
        "the others are counted",
    ),
    Limit(
        _PROBES, "received, over all redirects", PROBE_BYTES, "bytes", "the probe fails, or the status counts"
    ),
    Limit(_PROBES, "status line and headers", PROBE_HEAD, "bytes", _FAILS),
    Limit(_PROBES, "lines of headers", PROBE_HEAD_LINES, "", _FAILS),
    Limit(_PROBES, "informational responses (1xx)", PROBE_INFORMATIONAL, "", _FAILS),
    Limit(_PROBES, "body", PROBE_BODY, "bytes", "the rest is not read; the status counts"),
    Limit(_PROBES, "pieces of the body", PROBE_BODY_PIECES, "", "the rest is not read; the status counts"),
    Limit(_PROBES, "redirects", PROBE_REDIRECTS, "", _FAILS),
    Limit(_PROBES, "read in one turn", PROBE_CHUNK, "bytes", _TURN),
    Limit(_PROBES, "CPU time of one probe", PROBE_CPU, "s", _FAILS),
    Limit(
        _PROBES,
        "CPU time after which a probe is costly",
        PROBE_COSTLY,
        "s",
        "it is repeated with pauses, apart from other probes",
    ),
    Limit(_PROBES, "costly probes at the same time", PROBE_COSTLY_SLOTS, "", "probes wait for each other"),
    Limit(
        _PROBES, "all costly probes together", 100 * PROBE_COSTLY_SHARE, "% of a CPU", "they run less often"
    ),
    Limit(_PROBES, "connections at the same time", PROBE_CONNECTIONS, "", "probes wait for each other"),
    Limit(_PROBES, "commands at the same time", PROBE_COMMANDS, "", "probes wait for each other"),
    Limit(
        _PROBES,
        "connections, as a share of the open files that the hard limit allows",
        100 * PROBE_CONNECTIONS_SHARE,
        "%",
        "probes wait for each other",
    ),
    Limit(
        _PROBES,
        "commands, as a share of the same",
        100 * PROBE_COMMANDS_SHARE,
        "%",
        "probes wait for each other",
    ),
    Limit(_PROBES, "output of a command", PROBE_OUTPUT, "bytes", "the rest is discarded"),
    Limit(_PROBES, "messages of a container that are kept", PROBE_EVENTS, "", "the last ones are kept"),
    Limit(_PROBES, "characters of a message", PROBE_MESSAGE, "", "the rest is not kept"),
    Limit(_EVENTS, "age of an event", EVENT_SECONDS, "s", "it is forgotten"),
    Limit(_EVENTS, "events of a Service", EVENTS_OF_SERVICE, "", _OLDEST),
    Limit(_EVENTS, "events of all Services", EVENTS, "", _OLDEST),
    Limit(_EVENTS, "messages of all events", EVENT_BYTES, "bytes", _OLDEST),
    Limit(_EVENTS, "characters of a message", EVENT_MESSAGE, "", "the rest is not kept"),
    Limit(_EVENTS, "changed frontends of one round", EVENT_CHANGES, "", "the others make no events"),
    Limit(_NAMES, "names looked up at the same time", NAME_LOOKUPS, "", _FAILS),
    Limit(_NAMES, "addresses of a name", NAME_ADDRESSES, "", "the others are not used"),
    Limit(_CLIENTS, "open files, as far as the hard limit allows", MAX_FILES, "", "see the next two rows"),
    Limit(
        _CLIENTS,
        "connections, as a share of the open files; as many listening sockets",
        100 * SHARE_OF_FILES,
        "%",
        "an idle client is disconnected; a health check node port is not served",
    ),
    Limit(_CLIENTS, "connections", CONNECTIONS, "", "an idle client is disconnected"),
    Limit(
        _CLIENTS, "connections of one listener", CONNECTIONS_OF_LISTENER, "", "an idle client is disconnected"
    ),
    Limit(_CLIENTS, "time to receive a snapshot from the control socket", SNAPSHOT_SECONDS, "s", _CLOSED),
    Limit(_DOCTOR, "output", DOCTOR_BYTES, "bytes", "the page shows no findings"),
    Limit(_DOCTOR, "time", DOCTOR_SECONDS, "s", "the page shows no findings"),
    Limit(_HTTP, "head of a request", REQUEST_HEAD, "bytes", "the status is 431"),
    Limit(_HTTP, "body of a request", 0, "bytes", "the connection is closed after the response"),
    Limit(_HTTP, "time until the first request is complete", FIRST_REQUEST_SECONDS, "s", _CLOSED),
    Limit(_HTTP, "time to send the head of a request", REQUEST_SECONDS, "s", _CLOSED),
    Limit(_HTTP, "time to receive a response", RESPONSE_SECONDS, "s", _CLOSED),
    Limit(_HTTP, "pause after a response", REQUEST_PAUSE, "s", "the next request of the connection waits"),
    Limit(_HTTP, "time between requests", IDLE_SECONDS, "s", _CLOSED),
    Limit(_HTTP, "part of a response in memory for one client", RESPONSE_PIECE, "bytes", "sent in pieces"),
    Limit("Credential plugins", "time to end", PLUGIN_SECONDS, "s", "the plugin is killed, and runs again"),
    Limit(_DNS, "a query over UDP", DNS_QUERY, "bytes", "it is cut, and thus malformed"),
    Limit(_DNS, "a query over TCP", DNS_QUERY, "bytes", _CLOSED),
    Limit(_DNS, "time between two queries, to send one, to receive a reply", DNS_IDLE_SECONDS, "s", _CLOSED),
    Limit(_DNS, "queries over UDP answered in one turn", DNS_BATCH, "", "other tasks have their turn"),
    Limit(_DNS, "queries that wait in the kernel", DNS_RECEIVE_BUFFER, "bytes", "the kernel drops others"),
    Limit(
        _DNS,
        "refusals and errors over UDP to one network (/24 or /56) in a second",
        DNS_ERRORS,
        "",
        "no reply",
    ),
    Limit(_DNS, "time of an upstream server to reply", DNS_UPSTREAM_SECONDS, "s", "the next one is asked"),
    Limit(_DNS, "attempts with each upstream server", DNS_UPSTREAM_TRIES, "", "the reply is SERVFAIL"),
    Limit(
        _DNS,
        "different questions that wait for an upstream server",
        DNS_UPSTREAM_QUERIES,
        "",
        "the reply is SERVFAIL",
    ),
    Limit(_DNS, "queries that wait for upstream servers", DNS_WAITING, "", "the reply is SERVFAIL"),
    Limit(
        _DNS,
        "queries of one client that wait for upstream servers",
        DNS_WAITING_OF_CLIENT,
        "",
        "the reply is SERVFAIL",
    ),
    Limit(
        _DNS,
        "long replies of upstream servers that wait to be parsed",
        DNS_LONG_REPLIES,
        "",
        "the reply is SERVFAIL",
    ),
    Limit(_DNS, "networks that are counted in a second", DNS_NETWORKS, "", "the others share one limit"),
    Limit(_KERNEL, "time until an answer", NETLINK_SECONDS, "s", "the round fails, and is repeated later"),
    Limit(_KERNEL, "notifications of changed tables read in one turn", NETLINK_DATAGRAMS, "", _TURN),
    Limit(
        _KERNEL,
        "live connections that `kproxy top` and `connections` read, of each family",
        LIVE_CONNECTIONS,
        "",
        "the output says that there are more",
    ),
    Limit(_API, "time to connect", CONNECT_SECONDS, "s", "the request is repeated later"),
    Limit(_API, "time without data", API_IDLE_SECONDS, "s", "the connection is closed"),
    Limit(_API, "page of a list, received and decompressed", API_PAGE, "bytes", _SMALLER),
    Limit(_API, "values in a page", API_VALUES, "", _SMALLER),
    Limit(_API, "time to receive a page", API_PAGE_SECONDS, "s", _SMALLER),
    Limit(_API, "time until a response begins", HEAD_SECONDS, "s", "the request is repeated later"),
    Limit(
        _API,
        "head of a response, and what is not a part of its body",
        RESPONSE_HEAD,
        "bytes",
        "the request is repeated later",
    ),
    Limit(_API, "one object of a list", API_OBJECT, "bytes", "the object is a problem"),
    Limit(_API, "one event of a watch", API_OBJECT, "bytes", _KEPT),
    Limit(_API, "objects of one kind", API_OBJECTS, "", _KEPT),
    Limit(_API, "invalid objects of one kind", API_INVALID, "", _KEPT),
    Limit(_API, "text of all objects of one kind", API_TEXT, "bytes", _KEPT),
    Limit(_API, "pages of one list without a new object", API_PAGES_WITHOUT_NEWS, "", _KEPT),
    Limit(_API, "body of an error", API_ERROR, "bytes", "the rest is not read"),
    Limit(_API, "decompressed in one turn", API_PIECE, "bytes", _TURN),
    Limit(_API, "objects decoded in one turn", API_DECODED_AT_ONCE, "", _TURN),
    Limit(
        _API,
        "time after which no other object of a list is decoded in one turn",
        API_TURN_SECONDS,
        "s",
        _TURN,
    ),
    Limit(_API, "a watch, beyond the requested time", API_WATCH_GRACE, "s", "it is resumed"),
    Limit(_API, "time to receive a streamed list", API_STREAM_SECONDS, "s", _PAGES),
    Limit(_API, "time without data of a streamed list", API_STREAM_IDLE_SECONDS, "s", _PAGES),
    Limit(_ENGINES, "answer", ENGINE_BYTES, "bytes", _UNCHANGED),
    Limit(_ENGINES, "containers", ENGINE_CONTAINERS, "", _UNCHANGED),
    Limit(_ENGINES, "event", ENGINE_EVENT, "bytes", "the connection is opened again"),
    Limit(_ENGINES, "time of an answer", ENGINE_SECONDS, "s", _UNCHANGED),
    Limit(_ENGINES, "inspections at the same time", ENGINE_REQUESTS, "", "they wait for each other"),
    Limit(
        _ENGINES,
        "time to look for a command that timed out",
        ENGINE_KILL_SECONDS,
        "s",
        "the command is not killed",
    ),
    Limit(_INGRESS, "characters of a text in HAProxy's configuration", GATEWAY_TEXT, "", _NOT_SERVED),
    Limit(_INGRESS, "characters of a regular expression", GATEWAY_REGEX, "", _NOT_SERVED),
    Limit(_INGRESS, "a regular expression, compiled (estimate)", GATEWAY_REGEX_BYTES, "bytes", _NOT_SERVED),
    Limit(_INGRESS, "time to check a password (estimate)", GATEWAY_PASSWORD_SECONDS, "s", _NOT_SERVED),
    Limit(
        _INGRESS,
        "time to check the passwords of all users once (estimate)",
        GATEWAY_PASSWORDS_SECONDS,
        "s",
        _NOT_SERVED,
    ),
    Limit(_INGRESS, "networks, or users, of an annotation", GATEWAY_ITEMS, "", _NOT_SERVED),
    Limit(_INGRESS, "paths x hosts of `server-alias` of an Ingress", GATEWAY_COMBINATIONS, "", _NOT_SERVED),
    Limit(
        _INGRESS,
        "listeners x hostnames x matches of an HTTPRoute",
        GATEWAY_COMBINATIONS,
        "",
        "the Gateway does not accept the route",
    ),
    Limit(_SECRETS, "chain and key", CERTIFICATE_BYTES, "bytes", "its hosts have no HTTPS"),
    Limit(_SECRETS, "certificates of a chain", CERTIFICATE_CHAIN, "", "its hosts have no HTTPS"),
    Limit(_GATEWAY, "reply to a command", GATEWAY_REPLY, "bytes", _RELOAD),
    Limit(_GATEWAY, "time of a reply", GATEWAY_SECONDS, "s", _RELOAD),
    Limit(
        _GATEWAY,
        "time to check files, and to start",
        GATEWAY_START_SECONDS,
        "s",
        "the process before continues",
    ),
    Limit(
        _GATEWAY, "time to finish connections after a reload", GATEWAY_DRAIN_SECONDS, "s", "they are closed"
    ),
    Limit(_GATEWAY, "metrics of HAProxy", GATEWAY_METRICS, "bytes", "/metrics is without them"),
)
