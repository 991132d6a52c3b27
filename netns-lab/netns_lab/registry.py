"""Which labs this host has, and their removal.

A lab is a file /run/netns-lab/<id>.json, there before its first namespace and
until after its last, network namespaces ``nl-<id>-<host>``, and in the directory
/run/netns-lab/<id> a mount namespace for each pod. It belongs to an owner,
the process that runs it, or to nobody, when ``netns-lab down`` is to end it. An
owner is a pid with its start time, since pids come again. A lab whose owner
has died is removed by its server, or if there is none (it died too, or was not
started yet) by ``prune``, which every lab that starts runs.

Making and removing take the directory's lock, so that an id that comes free is
not taken while a slow remover still clears it away.
"""

import json
import os
import re
import secrets
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
        """The process that has this pid now; a zombie has started never. OSError if there is none."""
        # proc(5): pid (comm) state ppid ... and the start time is field 22
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return cls(pid, int(fields[19]) if fields[0] not in "ZX" else 0)

    def alive(self) -> bool:
        try:
            return Process.find(self.pid) == self
        except OSError:
            return False


@dataclass(frozen=True)
class Record:
    """What the file says of a lab."""

    id: str
    topology: Topology
    owner: Process | None
    server: Process | None = None

    def namespace(self, host: str) -> str:
        """The namespace of a node, pod or client, or of the ``lan``."""
        pods = [pod for pod in self.topology.pods if pod.name == host]
        return f"nl-{self.id}-{pods[0].node if pods and pods[0].host_network else host}"

    def files(self, pod: str) -> Path:
        """The mount namespace of a pod."""
        return RUN / self.id / pod

    def namespaces(self) -> list[str]:
        """Those there are, whatever the topology says."""
        return sorted(path.name for path in netns.RUN.glob(f"nl-{self.id}-*"))

    def orphaned(self) -> bool:
        return self.owner is not None and not self.owner.alive()


def reserve(topology: Topology, name: str | None) -> Record:
    """A new lab of this process. ValueError for a bad name, FileExistsError for one in use."""
    if name is not None and not re.fullmatch(r"[a-z0-9]{1,12}", name):
        raise ValueError(f"{name!r} cannot name a lab: 1 to 12 lower-case letters and digits")
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    lab = name or secrets.token_hex(3)
    with linux.locked(RUN):
        if _path(lab).exists():
            raise FileExistsError(f"there is a lab {lab!r} already")
        record = Record(lab, topology, owner=Process.find(os.getpid()))
        save(record)
    return record


def save(record: Record) -> None:
    """Replace the lab's file."""
    new = _path(record.id).with_suffix(".new")
    new.write_text(json.dumps(asdict(record, dict_factory=_said), indent=1) + "\n")
    new.rename(_path(record.id))


def _said(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Without what is empty by default, so that most files can be read by other versions of this code."""
    return {name: value for name, value in fields if value is not False and value != {}}


def load(lab: str) -> Record:
    """LookupError if there is no such lab."""
    try:
        plain = json.loads(_path(lab).read_text())
    except FileNotFoundError:
        there_are = ", ".join(record.id for record in labs()) or "none"
        raise LookupError(f"no lab {lab!r}: there are {there_are}") from None
    return Record(
        plain["id"],
        Topology.from_dict(plain["topology"]),
        owner=plain["owner"] and Process(**plain["owner"]),
        server=plain["server"] and Process(**plain["server"]),
    )


def labs() -> list[Record]:
    """All labs of this host, by id; not those which only another version of this code can read."""
    records = []
    for path in sorted(RUN.glob("*.json")):
        try:
            records.append(load(path.stem))
        except (LookupError, TypeError, ValueError):  # removed meanwhile, or not of this version
            continue
    return records


def remove(lab: str) -> None:
    """End the lab's processes and take away its namespaces and its file; without it, nothing happens.

    The server goes last of all but the file: were this process to die halfway,
    it would finish the work.
    """
    with linux.locked(RUN):
        if _path(lab).exists():
            _remove(load(lab))


def prune() -> list[str]:
    """Remove the labs whose owners have died; their ids."""
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
    if record.server and record.server.alive() and record.server.pid != os.getpid():
        processes.kill(record.server.pid)
    _path(record.id).with_suffix(".new").unlink(missing_ok=True)
    _path(record.id).unlink(missing_ok=True)


def _path(lab: str) -> Path:
    return RUN / f"{lab}.json"
