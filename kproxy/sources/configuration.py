"""Read a KubeProxyConfiguration from a file, also from a file with kubeadm's ConfigMap."""

from __future__ import annotations

from typing import Any

import msgspec

from kproxy.problems import Problem, UsageError
from kproxy.settings.kubeproxy import Configuration, decode_configuration
from kproxy.sources.files import parse, read_documents

CONFIG_KEY = "config.conf"
"""The key of the configuration in kubeadm's ConfigMap kube-system/kube-proxy."""


def read_configuration(path: str) -> tuple[dict[str, Any], list[str]]:
    """Return settings by name, and warnings. Raises UsageError, which names all invalid fields."""
    documents, problems = read_documents([path])
    if problems:
        raise UsageError(str(problems[0]))
    if len(documents) != 1:
        raise UsageError(f"{path}: contains {len(documents)} documents; expected one KubeProxyConfiguration.")
    found = _decode(path, documents[0].content)
    if found.problems:
        raise UsageError(f"{path}: {'; '.join(found.problems)}")
    return found.values, [f"{path}: {warning}" for warning in found.warnings]


def _decode(path: str, content: Any) -> Configuration:
    loaded = msgspec.json.decode(content) if isinstance(content, msgspec.Raw) else content
    if not isinstance(loaded, dict) or loaded.get("kind") != "ConfigMap":
        return decode_configuration(loaded)
    data = loaded.get("data")
    text = data.get(CONFIG_KEY) if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise UsageError(f"{path}: the ConfigMap has no key {CONFIG_KEY}.")
    document = next(parse(f"{path}: {CONFIG_KEY}", text.encode()), None)
    if isinstance(document, Problem):
        raise UsageError(str(document))
    return decode_configuration(document.content if document else None)
