"""Files of manifests: their objects, and one change in their text."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.CSafeLoader):
    """Reads dates as text, as JSON has them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
LEVELS = 100
CHARACTERS = 2_000_000
SUFFIXES = (".yaml", ".yml", ".json")


def documents(paths: Sequence[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the objects in files, and in the manifests of folders, each with its file.

    Raises OSError if a path cannot be read, ValueError if a file is not YAML or JSON.
    """
    for path in _files(map(Path, paths)):
        try:
            text = path.read_text()
            _check_levels(text)
            loaded = list(yaml.load_all(text, Loader=_Loader))
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
        except (AttributeError, TypeError):  # for example !!timestamp x
            raise ValueError(f"{path}: a value does not have the form of its tag") from None
        yield from ((path, _plain(path, each)) for each in loaded if isinstance(each, dict))


def _check_levels(text: str) -> None:
    """Raise ValueError if YAML is nested so deeply that libyaml would exceed the stack, which ends Python."""
    level = 0
    for event in yaml.parse(text, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > LEVELS:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ValueError(f"line {line}: has more than {LEVELS} levels")


def _plain(path: Path, document: dict[Any, Any]) -> dict[str, Any]:
    """Return a document as JSON has it: keys are text. Raises ValueError if JSON cannot express it."""
    try:
        plain: dict[str, Any] = json.loads("".join(_json(document)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not an object of Kubernetes: {error}") from None
    return plain


def _json(document: dict[Any, Any]) -> Iterator[str]:
    """Yield a document as JSON. Raises ValueError if it is long: a few aliases can stand for much text."""
    length = 0
    for piece in json.JSONEncoder().iterencode(document):
        length += len(piece)
        if length > CHARACTERS:
            raise ValueError(f"has more than {CHARACTERS} characters as JSON")
        yield piece


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES)
        else:
            yield path


def with_replicas(text: str, kind: str, name: str, replicas: int) -> str:
    """Return a file with another ``spec.replicas`` of one object. All other bytes stay."""
    for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
        for each in _objects_in(node):
            fields = _mapping(each)
            metadata = _mapping(fields.get("metadata"))
            if _value(fields.get("kind")) == kind and _value(metadata.get("name")) == name:
                return _replaced(text, fields["spec"], replicas)
    raise LookupError(f"no {kind} {name!r}")


def replace_text(path: Path, text: str) -> None:
    """Replace a file atomically. Its mode stays."""
    path = path.resolve()
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    shutil.copymode(path, new)
    new.rename(path)


def _replaced(text: str, spec: yaml.MappingNode, replicas: int) -> str:
    old = _mapping(spec).get("replicas")
    if old is not None:
        return text[: old.start_mark.index] + str(replicas) + text[old.end_mark.index :]
    start = spec.value[0][0].start_mark
    between = ", " if spec.flow_style else "\n" + " " * start.column
    quote = '"' if spec.flow_style else ""
    return f"{text[: start.index]}{quote}replicas{quote}: {replicas}{between}{text[start.index :]}"


def _objects_in(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield an object, or those in a List."""
    fields = _mapping(node)
    if _value(fields.get("kind")) == "List":
        items = fields.get("items")
        for item in items.value if isinstance(items, yaml.SequenceNode) else ():
            yield from _objects_in(item)
    elif node is not None:
        yield node


def _mapping(node: yaml.Node | None) -> dict[str, Any]:
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _value(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
