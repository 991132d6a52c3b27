"""Decodes Kubernetes' protobuf to the types of `wire`. No other module calls the decoder of protobuf.

The numbers of the fields are those of Kubernetes' `generated.proto`. Only fields that kproxy reads are
declared; the decoder skips the others. Small messages that are alike in many objects are declared as bytes,
and decoded once.

Fields that are absent in JSON can be empty texts or empty objects here. The other modules of this folder
treat these alike, because a manifest can contain them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from sys import intern
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from msgspec import UNSET, DecodeError, to_builtins

from kproxy.decode import wire
from kproxy.decode.text import Encoded, MalformedError, TooManyError, reason
from kproxy.limits import OBJECT_ITEMS

T = TypeVar("T")
Convert: TypeAlias = Callable[[Any], Any]


class Time(wire.Wire):
    """A time, which is a text in JSON."""

    seconds: int | None = None


class IntOrString(wire.Wire):
    """A number (type 0) or a text (type 1). In JSON, it is one of them."""

    type: int | None = None
    int_val: int | None = None
    str_val: str | None = None


class Unknown(wire.Wire):
    """What is around an object: its kind and version, and its bytes."""

    type_meta: wire.TypeMeta
    raw: bytes


class UnknownList(wire.Wire):
    """The same around a list."""

    raw: Items


class RawExtension(wire.Wire):
    """An object of an event."""

    raw: bytes


class Event(wire.Wire):
    """One event of a watch."""

    type: str
    object: RawExtension


class Items(wire.Wire):
    """A list. Its items stay undecoded, so that each can fail alone."""

    metadata: wire.ListMeta
    items: list[bytes] | None = None


NUMBERS: dict[type[Any], dict[str, int]] = {
    Time: {"seconds": 1},
    IntOrString: {"type": 1, "int_val": 2, "str_val": 3},
    Unknown: {"type_meta": 1, "raw": 2},
    wire.TypeMeta: {"kind": 2, "api_version": 1},
    UnknownList: {"raw": 2},
    RawExtension: {"raw": 1},
    Event: {"type": 1, "object": 2},
    Items: {"metadata": 1, "items": 2},
    wire.Named: {"metadata": 1},
    wire.ListMeta: {"resource_version": 2, "continue_": 3},
    wire.Status: {"message": 3, "reason": 4, "details": 5, "code": 6},
    wire.StatusDetails: {"retry_after_seconds": 5},
    wire.Bookmark: {"metadata": 1},
    wire.BookmarkMeta: {"resource_version": 6, "annotations": 12},
    wire.Identified: {"metadata": 1},
    wire.Identity: {"name": 1, "namespace": 3, "resource_version": 6},
    wire.Metadata: {
        "name": 1,
        "namespace": 3,
        "uid": 5,
        "resource_version": 6,
        "creation_timestamp": 8,
        "deletion_timestamp": 9,
        "labels": 11,
        "annotations": 12,
    },
    wire.Service: {"metadata": 1, "spec": 2, "status": 3},
    wire.ServiceSpec: {
        "ports": 1,
        "selector": 2,
        "cluster_ip": 3,
        "type": 4,
        "external_ips": 5,
        "session_affinity": 7,
        "load_balancer_ip": 8,
        "load_balancer_source_ranges": 9,
        "external_name": 10,
        "external_traffic_policy": 11,
        "health_check_node_port": 12,
        "publish_not_ready_addresses": 13,
        "session_affinity_config": 14,
        "ip_family_policy": 17,
        "cluster_ips": 18,
        "ip_families": 19,
        "allocate_load_balancer_node_ports": 20,
        "load_balancer_class": 21,
        "internal_traffic_policy": 22,
        "traffic_distribution": 23,
    },
    wire.ServicePort: {"name": 1, "protocol": 2, "port": 3, "target_port": 4, "node_port": 5},
    wire.SessionAffinityConfig: {"client_ip": 1},
    wire.ClientIP: {"timeout_seconds": 1},
    wire.ObjectStatus: {"load_balancer": 1},
    wire.LoadBalancerStatus: {"ingress": 1},
    wire.LoadBalancerIngress: {"ip": 1, "hostname": 2, "ip_mode": 3},
    wire.EndpointSlice: {"metadata": 1, "endpoints": 2, "ports": 3, "address_type": 4},
    wire.Endpoint: {
        "addresses": 1,
        "conditions": 2,
        "hostname": 3,
        "target_ref": 4,
        "node_name": 6,
        "hints": 8,
    },
    wire.EndpointConditions: {"ready": 1, "serving": 2, "terminating": 3},
    wire.ObjectReference: {"kind": 1, "name": 3},
    wire.EndpointHints: {"for_zones": 1, "for_nodes": 2},
    wire.Hint: {"name": 1},
    wire.EndpointPort: {"name": 1, "protocol": 2, "port": 3},
    wire.Node: {"metadata": 1, "spec": 2, "status": 3},
    wire.NodeSpec: {"pod_cidr": 1, "unschedulable": 4, "taints": 5, "pod_cidrs": 7},
    wire.Taint: {"key": 1, "value": 2, "effect": 3},
    wire.NodeStatus: {"conditions": 4, "addresses": 5, "node_info": 7},
    wire.Condition: {"type": 1, "status": 2},
    wire.NodeAddress: {"type": 1, "address": 2},
    wire.NodeInfo: {
        "kernel_version": 4,
        "os_image": 5,
        "container_runtime_version": 6,
        "kubelet_version": 7,
    },
    wire.ServiceCIDR: {"metadata": 1, "spec": 2},
    wire.ServiceCIDRSpec: {"cidrs": 1},
}
"""The numbers of the fields of each type. The last fields of a type may have none: they are None."""

TIMES = frozenset({"creation_timestamp", "deletion_timestamp"})
SHARED = frozenset(
    {
        *(Time, IntOrString, wire.ServicePort, wire.SessionAffinityConfig, wire.ObjectStatus),
        *(wire.EndpointConditions, wire.EndpointHints, wire.EndpointPort),
    }
)
"""Types of which many objects have equal values."""
SHORT = 64
"""The longest message that is kept, to be decoded once, in bytes. Its objects can have 2 kB."""
ABSENT = -(1 << 63)
"""The value that the decoder returns for a number or boolean that is absent."""
MAGIC = b"k8s\0"
"""The begin of a response with a single object."""


class Protobuf(Encoded):
    """An object in protobuf. It is decoded to the types in NUMBERS."""

    def convert(self, kind: type[T]) -> T:
        """Decode it. Raises MalformedError and TooManyError."""
        try:
            return cast(T, _parser(cast(Any, kind))(self.data))
        except TooManyError:
            raise
        except Exception as error:
            raise MalformedError(reason(error)) from None

    def to_python(self) -> Any:
        """Return its name, namespace and labels; UNSET if that is impossible."""
        kinds: tuple[type[wire.Named | wire.Identified], ...] = (wire.Named, wire.Identified)
        for kind in kinds:  # if the labels are invalid, the name may be valid
            try:
                metadata = to_builtins(self.convert(kind).metadata)
            except DecodeError:
                continue
            return {"metadata": {name: value for name, value in metadata.items() if value}}
        return UNSET


def opened(data: bytes) -> Protobuf:
    """Return the object that has its kind and version around it. Raises MalformedError."""
    return Protobuf(_picked(Unknown, _without_magic(data), _RAW))


def page(data: bytes | bytearray) -> tuple[wire.ListMeta, Iterator[Protobuf]]:
    """Return the metadata and the items of a list. Raises MalformedError.

    The items are copied out of the list one by one: a page can be long.
    """
    metadata, items = _picked(UnknownList, _without_magic(data), _METADATA_AND_ITEMS)
    return _maker(wire.ListMeta)(metadata), map(Protobuf, items)


def _without_magic(data: bytes | bytearray) -> bytes | bytearray:
    if not data.startswith(MAGIC):
        raise MalformedError("is not protobuf of Kubernetes")
    return data[len(MAGIC) :]


def event(data: bytes) -> tuple[str, bytes]:
    """Return the type of an event of a watch, and what `opened` takes. Raises MalformedError."""
    found: tuple[str, bytes] = _picked(Event, data, _TYPE_AND_RAW)
    return found


@lru_cache(None)
def begin_of(kind: str, version: str) -> bytes:
    """Return how an object of this kind and version usually begins, with its kind and version around it."""
    about = _messages()[wire.TypeMeta](f1=version, f2=kind)
    found: bytes = MAGIC + _messages()[Unknown](f1=about).SerializeToString()
    return found


def type_of(data: bytes | bytearray) -> wire.TypeMeta:
    """Return the kind and the version around an object. Raises MalformedError."""
    found: wire.TypeMeta = _maker(wire.TypeMeta)(_picked(Unknown, _without_magic(data), _TYPE_META))
    return found


# The decoder's messages

_Proto = descriptor_pb2.FieldDescriptorProto
_ONE, _MANY = _Proto.LABEL_OPTIONAL, _Proto.LABEL_REPEATED
_EDITION = descriptor_pb2.EDITION_2023
"""Its decoder refuses texts that are not UTF-8. That of proto2 returns bytes for them."""
_SCALARS = {
    str: _Proto.TYPE_STRING,
    bytes: _Proto.TYPE_BYTES,
    int: _Proto.TYPE_INT64,
    bool: _Proto.TYPE_INT64,
}


class _Field(NamedTuple):
    """A field of a type. In messages it is called f1, f2, ... by its number."""

    number: int
    type: Any
    """A key of _SCALARS or of NUMBERS, or dict."""
    is_list: bool
    is_required: bool


@lru_cache(None)
def _fields(kind: Any) -> list[_Field]:
    """Return the fields that have numbers, in the order of the type."""
    hints, numbers = get_type_hints(kind), NUMBERS[kind]
    return [_field(name, numbers[name], hints[name]) for name in kind.__struct_fields__ if name in numbers]


def _field(name: str, number: int, hint: Any) -> _Field:
    alternatives = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    types = [each for each in alternatives if each is not NoneType]
    kind = types[0] if len(types) == 1 else IntOrString
    is_list = get_origin(kind) is list
    item = get_args(kind)[0] if is_list else get_origin(kind) or kind
    return _Field(number, Time if name in TIMES else item, is_list, is_required=alternatives == (hint,))


@lru_cache(None)
def _messages() -> dict[type[Any], Any]:
    """Return the decoder's class of messages for each type."""
    file = descriptor_pb2.FileDescriptorProto(name="kproxy", syntax="editions", edition=_EDITION)
    for kind in NUMBERS:
        message = file.message_type.add(name=kind.__name__)
        for field in _fields(cast(Any, kind)):
            _declare(message, field)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found: dict[Any, Any] = {kind: pool.FindMessageTypeByName(kind.__name__) for kind in NUMBERS}
    return {kind: message_factory.GetMessageClass(each) for kind, each in found.items()}


_RAW, _TYPE_META, _TYPE_AND_RAW = attrgetter("f2"), attrgetter("f1"), attrgetter("f1", "f2.f1")
"""The raw bytes of an Unknown, and its TypeMeta; the type and the raw bytes of an Event."""
_METADATA_AND_ITEMS = attrgetter("f2.f1", "f2.f2")
"""Those of an UnknownList."""


def _picked(kind: Any, data: bytes | bytearray, pick: Convert) -> Any:
    """Return some values of a message. Raises MalformedError."""
    try:
        return pick(_messages()[kind].FromString(data))
    except Exception as error:
        raise MalformedError(reason(error)) from None


def _declare(message: descriptor_pb2.DescriptorProto, field: _Field) -> None:
    declared = message.field.add(name=f"f{field.number}", number=field.number)
    declared.label = _MANY if field.is_list or field.type is dict else _ONE
    if field.type in _SCALARS:
        declared.type = _SCALARS[field.type]
        if declared.type == _Proto.TYPE_INT64 and not field.is_required:
            declared.default_value = str(ABSENT)
    elif field.type in SHARED:
        declared.type = _Proto.TYPE_BYTES
    else:
        declared.type = _Proto.TYPE_MESSAGE
        declared.type_name = _entry(message, field) if field.type is dict else field.type.__name__


def _entry(message: descriptor_pb2.DescriptorProto, field: _Field) -> str:
    """Declare the entries of a map of texts. Returns the name of their type."""
    entry = message.nested_type.add(name=f"F{field.number}Entry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(name=name, number=number, label=_ONE, type=_Proto.TYPE_STRING)
    return entry.name


# From messages to objects


@lru_cache(None)
def _parser(kind: Any) -> Convert:
    """Return the function that decodes bytes to this type."""
    if kind not in NUMBERS:
        raise MalformedError("is protobuf, which kproxy does not read for this kind")
    parse, make = _messages()[kind].FromString, _maker(kind)
    if kind not in SHARED:
        return lambda data: make(parse(data))
    kept = lru_cache(4096)(lambda data: make(parse(data)))
    return lambda data: kept(data) if len(data) <= SHORT else make(parse(data))


@lru_cache(None)
def _maker(kind: Any) -> Convert:
    """Return the function that makes an object of this type from a message."""
    converters = [_converter(field) for field in _fields(kind)]
    converted = [(place, each) for place, each in enumerate(converters) if each]
    get = attrgetter(*(f"f{field.number}" for field in _fields(kind)))
    values = get if len(converters) > 1 else lambda message: (get(message),)
    result = _RESULTS.get(kind, kind)

    def make(message: Any) -> Any:
        found = list(values(message))
        try:
            for place, convert in converted:
                found[place] = convert(found[place])
        except TooManyError as error:
            raise TooManyError(_joined(kind.__struct_encode_fields__[place], error.path)) from None
        return result(*found)

    return make


def _converter(field: _Field) -> Convert | None:
    """Return what converts the value in a message; None if it stays as it is."""
    if field.type is dict:
        return _dict
    if field.type in _SCALARS:
        if field.is_list:
            return _list
        return None if field.is_required else {int: _number, bool: _truth}.get(field.type)
    convert = _parser(field.type) if field.type in SHARED else _maker(field.type)
    if field.is_list:
        return lambda values: [convert(each) for each in _few(values)] if values else None
    return (lambda data: convert(data) if data else None) if field.type in SHARED else convert


def _number(value: int) -> int | None:
    return None if value == ABSENT else value


def _truth(value: int) -> bool | None:
    return None if value == ABSENT else value != 0


def _list(values: Any) -> list[Any] | None:
    return _few(values)[:] if values else None


def _dict(entries: Any) -> dict[str, str] | None:
    """Return a map. Its keys are those of many objects, so they are one text in memory."""
    return {intern(key): entries[key] for key in _few(entries)} if entries else None


def _few(values: Any) -> Any:
    """Return a list or a map, if it has not too many items. Raises TooManyError, which then gets its path."""
    if len(values) > OBJECT_ITEMS:
        raise TooManyError("")
    return values


def _joined(field: str, path: str) -> str:
    return f"{field}.{path}" if path else field


def _time(seconds: int | None) -> str:
    """Return a time as in JSON (RFC 3339), which has years from 1 to 9999: else the first or last time."""
    return datetime.fromtimestamp(min(max(seconds or 0, _FIRST), _LAST), UTC).isoformat()[:-6] + "Z"


_REPRESENTABLE = datetime.min, datetime.max.replace(microsecond=0)
_FIRST, _LAST = (int(each.replace(tzinfo=UTC).timestamp()) for each in _REPRESENTABLE)


def _int_or_string(kind: int | None, number: int | None, text: str) -> int | str | None:
    return text if kind else number


_RESULTS: dict[type[Any], Callable[..., Any]] = {Time: _time, IntOrString: _int_or_string}
"""What is made of types that are texts or numbers in JSON."""
