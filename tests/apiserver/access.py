"""Who is asking, and whether they may: bearer tokens, client certificates, rules that forbid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.apiserver.http import Request
from tests.apiserver.resources import Target
from tests.apiserver.status import ApiError, unauthorized

ANONYMOUS = "system:anonymous"
PUBLIC = {"/healthz", "/livez", "/readyz", "/version"}


class Denial(NamedTuple):
    """A verb on a resource that nobody may use; "" stands for all."""

    verb: str = ""
    resource: str = ""


class Access:
    """Change `tokens` (token -> user) and `denied` at any time; without `required`, anyone may come."""

    def __init__(self, required: bool, tokens: Iterable[str] = ()) -> None:
        self.required = required
        self.rotate(*tokens)
        self.denied: set[Denial] = set()

    def rotate(self, *tokens: str, user: str = "system:serviceaccount:kube-system:kproxy") -> None:
        """From now on only these tokens are taken."""
        self.tokens: dict[str, str] = dict.fromkeys(tokens, user)

    def user(self, request: Request) -> str:
        """401 for a token that is not taken, and for nobody where somebody is required."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if request.common_name:
            return request.common_name
        if scheme.lower() == "bearer":
            if token not in self.tokens:
                raise unauthorized()
            return self.tokens[token]
        if self.required and request.path not in PUBLIC:
            raise unauthorized()
        return ANONYMOUS

    def check(self, user: str, verb: str, target: Target) -> None:
        """403 if it is denied."""
        resource = target.resource
        if not any(
            denial.verb in ("", verb) and denial.resource in ("", resource.plural) for denial in self.denied
        ):
            return
        scope = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        name = f' "{target.name}"' if target.name else ""
        message = (
            f'{resource.plural}{name} is forbidden: User "{user}" cannot {verb} resource '
            f'"{resource.plural}" in API group "{resource.group}" {scope}'
        )
        raise ApiError(403, "Forbidden", message, details={"kind": resource.plural, "group": resource.group})
