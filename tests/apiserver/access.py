"""Who is asking, and whether they may: bearer tokens, client certificates, rules that forbid.

A token that is not taken is 401. Who shows none is anonymous, and where somebody is required that one is
403, as with a real server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.apiserver.http import Request
from tests.apiserver.resources import Target
from tests.apiserver.status import forbidden, unauthorized

ANONYMOUS = "system:anonymous"


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
        """401 for a token that is not taken."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if request.common_name:
            return request.common_name
        if scheme.lower() == "bearer":
            if token not in self.tokens:
                raise unauthorized()
            return self.tokens[token]
        return ANONYMOUS

    def check(self, user: str, verb: str, target: Target) -> None:
        """403 if it is denied."""
        resource = target.resource
        if (self.required and user == ANONYMOUS) or any(
            denial.verb in ("", verb) and denial.resource in ("", resource.plural) for denial in self.denied
        ):
            raise forbidden(user, verb, resource, target.namespace, target.name)
