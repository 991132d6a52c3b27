"""Read a KubeProxyConfiguration from a file, in each form in which clusters keep one.

The file may have other documents, as the one that `kubeadm init` reads does. A ConfigMap may have the
configuration under any key: tools name it differently. `kubectl get -o yaml` writes a List.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kproxy.decode.text import reason, to_python
from kproxy.problems import Problem, UsageError
from kproxy.settings.kubeproxy import KIND, decode_configuration
from kproxy.sources.documents import parse
from kproxy.sources.files import read_documents


def read_configuration(path: str) -> tuple[dict[str, Any], list[str]]:
    """Return settings by name, and warnings. Raises UsageError, which names all invalid fields."""
    try:
        return _read(path)
    except RecursionError as error:
        raise UsageError(f"{path}: {reason(error)}.") from None


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    documents, problems = read_documents([path])
    if problems:
        raise UsageError(str(problems[0]))
    loaded = [to_python(document.content) for document in documents]
    configurations = [found for content in loaded for found in _configurations(path, content)]
    if len(configurations) != 1:
        raise UsageError(f"{path}: contains {len(configurations) or 'no'} {KIND}{_kinds(loaded)}.")
    found = decode_configuration(configurations[0])
    if found.problems:
        raise UsageError(f"{path}: {'; '.join(found.problems)}")
    return found.values, [f"{path}: {warning}" for warning in found.warnings]


def _configurations(path: str, content: Any) -> Iterator[dict[str, Any]]:
    """Return every configuration in a document: itself, its items, or the values of a ConfigMap."""
    if not isinstance(content, dict):
        return
    kind = str(content.get("kind"))
    if kind == KIND:
        yield content
    elif kind.endswith("List") and isinstance(content.get("items"), list):
        for item in content["items"]:
            yield from _configurations(path, item)
    elif kind == "ConfigMap" and isinstance(content.get("data"), dict):
        for key, text in content["data"].items():
            yield from _in_text(f"{path}: {key}", text)


def _in_text(source: str, text: object) -> Iterator[dict[str, Any]]:
    if not isinstance(text, str) or KIND not in text:
        return
    for document in parse(source, text.encode()):
        if isinstance(document, Problem):
            raise UsageError(str(document))
        yield from _configurations(source, to_python(document.content))


def _kinds(contents: list[Any]) -> str:
    kinds = {str(content.get("kind")) for content in contents if isinstance(content, dict)} - {"None", KIND}
    return f", only {', '.join(sorted(kinds))}" if kinds else ""
