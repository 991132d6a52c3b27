"""Authentication and authorization: bearer tokens, client certificates, denials.

An unknown token is 401. A client without credentials is anonymous; if the server requires credentials, it
gets 403, as from a real server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.apiserver.http import Request
from tests.apiserver.resources import Target
from tests.apiserver.status import forbidden, unauthorized

ANONYMOUS = "system:anonymous"


class Denial(NamedTuple):
    """A verb on a resource that is denied to all users; "" stands for all verbs or resources."""

    verb: str = ""
    resource: str = ""


class Access:
    """Tests change `tokens` (token -> user) and `denied` at any time; `required`: refuse anonymous users."""

    def __init__(self, required: bool, tokens: Iterable[str] = ()) -> None:
        self.required = required
        self.rotate(*tokens)
        self.denied: set[Denial] = set()

    def rotate(self, *tokens: str, user: str = "system:serviceaccount:kube-system:kproxy") -> None:
        """Accept only these tokens from now on."""
        self.tokens: dict[str, str] = dict.fromkeys(tokens, user)

    def user(self, request: Request) -> str:
        """Return the user of a request; 401 for an unknown token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if request.common_name:
            return request.common_name
        if scheme.lower() == "bearer":
            if token not in self.tokens:
                raise unauthorized()
            return self.tokens[token]
        return ANONYMOUS

    def check(self, user: str, verb: str, target: Target) -> None:
        """Raise 403 if a request is denied."""
        resource = target.resource
        if (self.required and user == ANONYMOUS) or any(
            denial.verb in ("", verb) and denial.resource in ("", resource.plural) for denial in self.denied
        ):
            raise forbidden(user, verb, resource, target.namespace, target.name)
