"""The labs of this host, and their removal.

A lab consists of a file /run/netns-lab/<id>.json, which exists longer than its
namespaces, network namespaces ``nl-<id>-<host>``, and a mount namespace for each
pod in the directory /run/netns-lab/<id>. A lab that follows manifests also has the
directory /run/netns-lab/<id>.objects, one without an owner the socket <id>.socket.

Its owner is the process that runs it. A lab without an owner stays until
``netns-lab down``. An owner is identified by its pid and start time, because pids
are reused. If the owner dies, the lab's server
removes the lab. If there is no server (it died, too, or had not been started),
``prune`` does. Each lab calls ``prune`` when it starts.

Creation and removal take a lock of the directory. So an id cannot be reused while
a slow process still removes its lab.
"""

import json
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netns_lab import linux, mntns, netns, processes
from netns_lab.topology import Topology

RUN = Path("/run/netns-lab")


@dataclass(frozen=True)
class Process:
    pid: int
    start: int

    @classmethod
    def find(cls, pid: int) -> "Process":
        """Return the process with this pid. A zombie has start time 0. Raises OSError if there is none."""
        # proc(5): pid (comm) state ppid ...; the start time is field 22
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return cls(pid, int(fields[19]) if fields[0] not in "ZX" else 0)

    def alive(self) -> bool:
        try:
            return Process.find(self.pid) == self
        except OSError:
            return False


@dataclass(frozen=True)
class Follows:
    """The manifests that a lab follows, and the commands that print what new pods get (``surroundings``)."""

    manifests: tuple[str, ...]
    directory: str
    """Where the commands run."""
    environment: str = ""
    resolv_conf: str = ""


@dataclass(frozen=True)
class Record:
    """The content of a lab's file."""

    id: str
    topology: Topology
    owner: Process | None
    server: Process | None = None
    follows: "Follows | None" = None

    def namespace(self, host: str) -> str:
        """Return the namespace of a node, pod or client, or of the ``lan``."""
        pods = [pod for pod in self.topology.pods if pod.name == host]
        return f"nl-{self.id}-{pods[0].node if pods and pods[0].host_network else host}"

    def files(self, pod: str) -> Path:
        """Return the mount namespace of a pod."""
        return RUN / self.id / pod

    def objects(self) -> Path:
        """Return the directory for the objects of a lab that follows manifests."""
        return RUN / f"{self.id}.objects"

    def namespaces(self) -> list[str]:
        """Return the existing network namespaces, even if the topology does not contain them."""
        return sorted(path.name for path in netns.RUN.glob(f"nl-{self.id}-*"))

    def orphaned(self) -> bool:
        return self.owner is not None and not self.owner.alive()


def reserve(topology: Topology, name: str | None) -> Record:
    """Register a new lab of this process. ValueError for an invalid name, FileExistsError for a used one."""
    if name is not None and not re.fullmatch(r"[a-z0-9]{1,12}", name):
        raise ValueError(f"{name!r} is not a name for a lab: use 1 to 12 lower-case letters and digits")
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with linux.locked(RUN):
        lab = name or _unused_name()
        if _path(lab).exists():
            raise FileExistsError(f"the lab {lab!r} exists already")
        record = Record(lab, topology, owner=Process.find(os.getpid()))
        save(record)
    return record


def _unused_name() -> str:
    """Return a random name that no lab has."""
    while _path(lab := secrets.token_hex(3)).exists():
        pass
    return lab


def save(record: Record) -> None:
    """Replace the lab's file."""
    new = _path(record.id).with_suffix(".new")
    new.write_text(json.dumps(asdict(record, dict_factory=_without_defaults), indent=1) + "\n")
    new.rename(_path(record.id))


def _without_defaults(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leave out default values, so that other versions of this code can read most files."""
    return {name: value for name, value in fields if value is not False and value != {}}


def load(lab: str) -> Record:
    """Read a lab's file. Raises LookupError if the lab does not exist."""
    try:
        plain = json.loads(_path(lab).read_text())
    except FileNotFoundError:
        present = ", ".join(record.id for record in labs()) or "none"
        raise LookupError(f"no lab {lab!r}; labs: {present}") from None
    return Record(
        plain["id"],
        Topology.from_dict(plain["topology"]),
        owner=plain["owner"] and Process(**plain["owner"]),
        server=plain["server"] and Process(**plain["server"]),
        follows=_follows(plain.get("follows")),
    )


def _follows(plain: dict[str, Any] | None) -> Follows | None:
    return Follows(**{**plain, "manifests": tuple(plain["manifests"])}) if plain else None


def labs() -> list[Record]:
    """Return all labs of this host, sorted by id. Files that this version cannot read are left out."""
    records = []
    for path in sorted(RUN.glob("*.json")):
        try:
            records.append(load(path.stem))
        except (LookupError, TypeError, ValueError):  # removed meanwhile, or written by another version
            continue
    return records


def remove(lab: str) -> None:
    """Kill the lab's processes and remove its namespaces and its file. Does nothing if it does not exist.

    The server is killed last: if this process dies during the removal, the
    server completes it.
    """
    with linux.locked(RUN):
        if _path(lab).exists():
            _remove(load(lab))


def prune() -> list[str]:
    """Remove the labs whose owners have died. Returns their ids."""
    if not RUN.exists():
        return []
    with linux.locked(RUN):
        orphans = [record for record in labs() if record.orphaned()]
        for record in orphans:
            _remove(record)
    return [record.id for record in orphans]


def _remove(record: Record) -> None:
    names, directory = record.namespaces(), RUN / record.id
    processes.kill_inside([*(netns.RUN / name for name in names), *directory.glob("*")])
    for name in names:
        netns.remove(name)
    mntns.remove_all(directory)
    shutil.rmtree(record.objects(), ignore_errors=True)
    control(record.id).unlink(missing_ok=True)
    if record.server and record.server.alive() and record.server.pid != os.getpid():
        processes.kill(record.server.pid)
    _path(record.id).with_suffix(".new").unlink(missing_ok=True)
    _path(record.id).unlink(missing_ok=True)


def control(lab: str) -> Path:
    """Return the socket on which the server of a lab without an owner takes commands."""
    return RUN / f"{lab}.socket"


def _path(lab: str) -> Path:
    return RUN / f"{lab}.json"
