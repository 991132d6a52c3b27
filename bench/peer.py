"""The peer: samples as nft scripts in the form of kube-proxy 1.36's nftables mode. Pure.

A Service has a chain, whose rule selects the endpoint with an anonymous map. Endpoints have no chains.
`service-ips` maps a frontend to its chain, and `cluster-ips` contains every ClusterIP. Names are as long as
kube-proxy's, because nft and the kernel handle them. The constant part is what ClusterIP Services need.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Iterable, Iterator
from hashlib import sha256

from bench.samples import CLUSTER_CIDR, PORT, SERVICE_CIDR, TARGET_PORT, Sample

TABLE = "ip kube-proxy"
FRONTEND = "ipv4_addr . inet_proto . inet_service"
MARK = "0x4000"

SKELETON = f"""\
table {TABLE} {{
	set cluster-ips {{ type ipv4_addr; }}
	set hairpin-connections {{ type ipv4_addr . {FRONTEND}; }}
	map service-ips {{ type {FRONTEND} : verdict; }}
	chain services {{
		ip daddr @cluster-ips ip saddr != {CLUSTER_CIDR} meta mark set meta mark or {MARK}
		ip daddr . meta l4proto . th dport vmap @service-ips
	}}
	chain masquerading {{
		meta mark and {MARK} != 0 meta mark set meta mark xor {MARK} masquerade fully-random
		ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade
	}}
	chain cluster-ips-check {{
		ip daddr @cluster-ips reject
		ip daddr {SERVICE_CIDR} drop
	}}
	chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
	chain nat-output {{ type nat hook output priority -100; jump services; }}
	chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
	chain filter-forward {{ type filter hook forward priority 0; ct state new jump cluster-ips-check; }}
	chain filter-output {{ type filter hook output priority 0; ct state new jump cluster-ips-check; }}
}}
"""


def chain_name(service: Sample) -> str:
    """Return the name of the Service's chain. The hash makes it unique, as in kube-proxy."""
    name = f"{service.namespace}/{service.name}/tcp/http"
    return f"service-{b32encode(sha256(name.encode()).digest())[:8].decode()}-{name}"


def _rule(service: Sample) -> str:
    places = ", ".join(f"{i} : {e.address} . {TARGET_PORT}" for i, e in enumerate(service.endpoints))
    choice = f"numgen random mod {len(service.endpoints)} map {{ {places} }}"
    return f"add rule {TABLE} {chain_name(service)} meta l4proto tcp dnat ip to {choice}"


def _commands(service: Sample) -> Iterator[str]:
    yield f"add chain {TABLE} {chain_name(service)}"
    yield f"add element {TABLE} cluster-ips {{ {service.address} }}"
    frontend = f"{service.address} . tcp . {PORT}"
    yield f"add element {TABLE} service-ips {{ {frontend} : goto {chain_name(service)} }}"
    yield _rule(service)


def load_script(services: Iterable[Sample]) -> str:
    """Return a script that loads everything into an empty namespace, as one transaction."""
    return SKELETON + "\n".join(command for service in services for command in _commands(service)) + "\n"


def change_script(service: Sample) -> str:
    """Return a script that changes the endpoints of a Service."""
    return f"flush chain {TABLE} {chain_name(service)}\n{_rule(service)}\n"
