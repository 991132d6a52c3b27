"""Annotations of an Ingress -> filters and policy of its routes.

An annotation is `kproxy.io/NAME` or `nginx.ingress.kubernetes.io/NAME`; the former wins. `KNOWN` lists
the names. A wrong value is a `FieldError`, and the Ingress is not served: without the annotation, more
clients might get access than its author meant. For the same reason, an Ingress with a name in `REFUSED` is
not served: these restrict access in ways that the gateway cannot. All other names are named in a warning.
docs/ingress.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from kproxy.decode.fields import SUBDOMAIN, FieldError, checked
from kproxy.gateway.core.passwords import seconds
from kproxy.gateway.core.paths import checked_regex
from kproxy.gateway.core.quote import changed_header, header_name, quoted, word
from kproxy.gateway.core.routes import (
    Affinity,
    BasicAuth,
    CorsFilter,
    Filter,
    HeaderFilter,
    Limits,
    Modified,
    PathChange,
    Policy,
    Redirect,
    Respond,
    User,
)
from kproxy.limits import GATEWAY_ITEMS, GATEWAY_PASSWORD_SECONDS
from kproxy.model import Network, Secret, read_network

T = TypeVar("T")
_NO_NETWORKS: tuple[Network, ...] = ()
_NO_HEADERS: tuple[tuple[str, str], ...] = ()
PREFIXES = ("kproxy.io/", "nginx.ingress.kubernetes.io/")
"""The first one wins."""
SIZE = re.compile(r"(\d{1,12})([kmg]?)", re.IGNORECASE)
LARGEST_SIZE = 1 << 62
"""Bytes. HAProxy compares signed numbers of 64 bits."""
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
TIME = re.compile(r"(\d{1,7})(ms|s|m|h|)")
MILLISECONDS = {"": 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\*\.)?[A-Za-z0-9.-]+(?::\d{1,5})?")
VARIABLE = re.compile(r"\$(?:\{\w*\}?|\w+)")
PROTOCOLS = {"HTTP": "http", "HTTPS": "https", "GRPC": "h2c", "GRPCS": "h2", "AUTO_HTTP": "http"}
METHODS = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
CORS_HEADERS = (
    "DNT, Keep-Alive, User-Agent, X-Requested-With, If-Modified-Since, Cache-Control, Content-Type, Range, "
    "Authorization"
)
LARGEST_BURST = 10_000
"""HAProxy counts over this many minutes. It refuses times from 25 days on."""
REPLACEABLE = frozenset({400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504})
REFUSED = {
    "auth-url": "external authentication",
    "auth-tls-secret": "client certificates",
    "enable-modsecurity": "a web application firewall",
    "ssl-passthrough": "TLS that ends at the Service",
    "configuration-snippet": "a snippet of nginx's configuration",
    "server-snippet": "a snippet of nginx's configuration",
    "stream-snippet": "a snippet of nginx's configuration",
    "auth-snippet": "a snippet of nginx's configuration",
    "modsecurity-snippet": "a snippet of nginx's configuration",
}
"""Annotations that cannot be ignored: the Ingress is not served."""


ADVICE = {"custom-headers": ": ConfigMaps are not read. Write kproxy.io/response-headers"}


class Canary(NamedTuple):
    """Which requests go to the Services of a canary Ingress in place of another one's."""

    weight: int = 0
    total: int = 100
    header: str = ""
    value: str = ""
    """The value of the header; "" for `always`."""
    pattern: str = ""
    cookie: str = ""


class Settings(NamedTuple):
    """What the annotations of one Ingress say."""

    policy: Policy = Policy()
    filters: tuple[Filter, ...] = ()
    rewrite: str = ""
    """The new path; "" for the one of the request."""
    regex: bool = False
    """Whether its paths are regular expressions."""
    reply: Redirect | Respond | None = None
    """What it replies in place of its Services."""
    to_https: bool | None = None
    """Whether HTTP is redirected to HTTPS; None: if the host has a certificate."""
    app_root: str = ""
    """Where / is redirected to."""
    aliases: tuple[str, ...] = ()
    """More hosts."""
    canary: Canary | None = None


class Annotations:
    """The annotations of one Ingress by NAME."""

    def __init__(self, texts: Mapping[str, str], find_secret: Callable[[str], Secret | None]) -> None:
        """`find_secret` returns a Secret by its name in the namespace of the Ingress."""
        self._texts = texts
        self._find_secret = find_secret
        self._keys: dict[str, str] = {}
        for prefix in reversed(PREFIXES):
            names = (key.removeprefix(prefix) for key in texts if key.startswith(prefix))
            self._keys |= {name: prefix + name for name in names}

    def names(self) -> list[str]:
        """Return the names that are set."""
        return sorted(self._keys)

    def field(self, name: str) -> str:
        """Return the place of an annotation, for messages."""
        return f"metadata.annotations[{self._keys.get(name, PREFIXES[0] + name)}]"

    def text(self, name: str, default: str = "") -> str:
        """Return a value without blanks around it."""
        key = self._keys.get(name)
        return self._texts[key].strip() if key else default

    def read(self, name: str, check: Callable[[str], T], default: T) -> T:
        """Return `check(value)`, or the default if it is absent or empty. Raises FieldError."""
        text = self.text(name)
        return checked(self.field(name), check, text) if text else default

    def boolean(self, name: str) -> bool:
        """Return whether a value is `true`. Raises FieldError for others than `true` and `false`."""
        return self.read(name, _boolean, default=False)

    def choice(self, name: str, words: tuple[str, ...], default: str = "") -> str:
        """Return one of some words, or the default if the annotation is absent. Raises FieldError."""
        text = self.text(name, default)
        if text not in (default, *words):
            raise FieldError(self.field(name), f"{text!r} is not {' or '.join(words)}")
        return text

    def secret(self, name: str) -> Secret:
        """Return the Secret that an annotation names. Raises FieldError."""
        found = self._find_secret(self.text(name))
        if found is None:
            raise FieldError(self.field(name), f"there is no Secret {self.text(name)!r} in this namespace")
        return found


def settings(found: Annotations) -> tuple[Settings, list[tuple[str, str]]]:
    """Return what annotations say, and a warning (field, message) for each that has no effect.

    Raises FieldError.
    """
    for name in found.names():
        if name in REFUSED:
            raise FieldError(found.field(name), f"the gateway does not support {REFUSED[name]}")
    unknown = [name for name in found.names() if name not in KNOWN]
    words = "is not known, and has no effect"
    return (
        Settings(
            _policy(found),
            tuple(_filters(found)),
            found.read("rewrite-target", _rewrite, ""),
            found.boolean("use-regex") or uses_regex(found),
            _redirect(found),
            _to_https(found),
            found.read("app-root", _rewrite, ""),
            found.read("server-alias", _hosts, ()),
            _canary(found) if found.boolean("canary") else None,
        ),
        [(found.field(name), words + ADVICE.get(name, "")) for name in unknown],
    )


def uses_regex(found: Annotations) -> bool:
    """Return whether the paths of an Ingress are regular expressions."""
    return found.text("use-regex") == "true" or "$" in found.text("rewrite-target")


# --- groups of annotations ---


def _policy(found: Annotations) -> Policy:
    sending = found.read("proxy-send-timeout", milliseconds, 0)
    return Policy(
        protocol=found.read("backend-protocol", _protocol, "http"),
        connect_timeout=found.read("proxy-connect-timeout", milliseconds, 0),
        server_timeout=max(found.read("proxy-read-timeout", milliseconds, 0), sending),
        body_size=found.read("proxy-body-size", size, 0),
        allowed=_ranges(found, "allowlist-source-range", "whitelist-source-range"),
        denied=_ranges(found, "denylist-source-range"),
        limits=_limits(found),
        auth=_auth(found),
        affinity=_affinity(found),
        host_header=found.read("upstream-vhost", _fixed_value, ""),
        replaced_errors=found.read("custom-http-errors", _statuses, ()),
    )


def _ranges(found: Annotations, *names: str) -> tuple[Network, ...]:
    """Return the networks of the first annotation that has any."""
    every = (found.read(name, _networks, _NO_NETWORKS) for name in names)
    return next(filter(None, every), ())


def _limits(found: Annotations) -> Limits:
    return Limits(
        found.read("limit-rps", _number, 0),
        found.read("limit-rpm", _number, 0),
        found.read("limit-connections", _number, 0),
        found.read("limit-burst-multiplier", _burst, 5) or 1,
        _ranges(found, "limit-allowlist", "limit-whitelist"),
    )


def _auth(found: Annotations) -> BasicAuth | None:
    if not found.choice("auth-type", ("basic",)):
        return None
    secret = found.secret("auth-secret")
    form = found.choice("auth-secret-type", ("auth-file", "auth-map"), "auth-file")
    users = checked(found.field("auth-secret"), lambda _: _users(secret, form), "")
    realm = found.read("auth-realm", _header_value, "Authentication Required")
    return BasicAuth(realm, users)


def _users(secret: Secret, form: str) -> tuple[User, ...]:
    """Return the users in a Secret: lines of htpasswd in the key `auth`, or a key for each user."""
    if form == "auth-map":
        pairs = [(name, value.decode(errors="replace")) for name, value in secret.data.items()]
    else:
        lines = secret.data.get("auth", b"").decode(errors="replace").splitlines()
        pairs = [(name, rest) for line in lines if line.strip() for name, _, rest in [line.partition(":")]]
    if len(pairs) > GATEWAY_ITEMS:
        raise ValueError(f"Secret {secret.name} contains more than {GATEWAY_ITEMS} users")
    if not pairs:
        raise ValueError(f"Secret {secret.name} contains no users")
    users = (_user(secret, name.strip(), text.strip()) for name, text in pairs)
    return tuple(sorted({user.name: user for user in reversed(list(users))}.values()))  # the first one counts


def _user(secret: Secret, name: str, text: str) -> User:
    duration = seconds(text)
    if duration is None:
        message = f"Secret {secret.name}: the password of {name!r} is not stored as crypt(3) does"
        raise ValueError(f"{message}. Make it with htpasswd -5 or mkpasswd")
    if duration > GATEWAY_PASSWORD_SECONDS:
        message = f"Secret {secret.name}: HAProxy needs too long to check the password of {name!r}"
        raise ValueError(f"{message}. Make it with htpasswd -5, or htpasswd -B -C 10")
    if not re.fullmatch(r"[!-9;-~]{1,128}", name):
        raise ValueError(f"Secret {secret.name}: {name!r} is not a name of a user")
    return User(name, text)


def _affinity(found: Annotations) -> Affinity | None:
    if not found.choice("affinity", ("cookie",)):
        return None
    age = found.read("session-cookie-max-age", _number, 0)
    return Affinity(
        found.read("session-cookie-name", _word, "INGRESSCOOKIE"),
        age or found.read("session-cookie-expires", _number, 0),
        found.read("session-cookie-path", _cookie_path, ""),
        found.read("session-cookie-samesite", _same_site, ""),
        found.boolean("session-cookie-secure"),
    )


def _filters(found: Annotations) -> list[Filter]:
    filters: list[Filter] = []
    if found.boolean("enable-cors"):
        filters.append(_cors(found))
    if prefix := found.read("x-forwarded-prefix", _fixed_value, ""):
        filters.append(HeaderFilter(Modified.REQUEST, set=(("X-Forwarded-Prefix", prefix),)))
    for name, where in (("request-headers", Modified.REQUEST), ("response-headers", Modified.RESPONSE)):
        if headers := found.read(name, _headers, _NO_HEADERS):
            filters.append(HeaderFilter(where, set=headers))
    return filters


def _cors(found: Annotations) -> CorsFilter:
    return CorsFilter(
        found.read("cors-allow-origin", _origins, ("*",)),
        found.read("cors-allow-methods", _words, _words(METHODS)),
        found.read("cors-allow-headers", _words, _words(CORS_HEADERS)),
        found.read("cors-expose-headers", _words, ()),
        found.read("cors-allow-credentials", _boolean, default=True),
        found.read("cors-max-age", _number, 1_728_000),
    )


def _redirect(found: Annotations) -> Redirect | None:
    for name, usual in (("permanent-redirect", 301), ("temporal-redirect", 302)):
        if found.text(name):
            status = found.read(f"{name}-code", _redirect_status, usual)
            return replace(found.read(name, _url, Redirect()), status=status)
    return None


def _to_https(found: Annotations) -> bool | None:
    if found.boolean("force-ssl-redirect"):
        return True
    return False if found.text("ssl-redirect") and not found.boolean("ssl-redirect") else None


def _canary(found: Annotations) -> Canary:
    value = found.read("canary-by-header-value", _header_value, "")
    return Canary(
        found.read("canary-weight", _number, 0),
        found.read("canary-weight-total", _number, 100) or 100,
        found.read("canary-by-header", header_name, ""),
        value,
        found.read("canary-by-header-pattern", checked_regex, ""),
        found.read("canary-by-cookie", _word, ""),
    )


# --- values ---


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not true or false")
    return text == "true"


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def _burst(text: str) -> int:
    if _number(text) > LARGEST_BURST:
        raise ValueError(f"{text} is more than {LARGEST_BURST}")
    return int(text)


def size(text: str) -> int:
    """Read a number of bytes: `8m`, `100k`."""
    found = SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a size, for example 8m")
    return min(int(found[1]) * UNITS[found[2].lower()], LARGEST_SIZE)


def milliseconds(text: str) -> int:
    """Read a time: `60` or `60s`, `500ms`, `5m`."""
    found = TIME.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a time, for example 60s")
    return int(found[1]) * MILLISECONDS[found[2]]


def _protocol(text: str) -> str:
    if text.upper() not in PROTOCOLS:
        raise ValueError(f"{text!r} is not one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[text.upper()]


def _networks(text: str) -> tuple[Network, ...]:
    parts = [part for part in text.split(",") if part.strip()]
    if len(parts) > GATEWAY_ITEMS:
        raise ValueError(f"has more than {GATEWAY_ITEMS} networks")
    return tuple(map(read_network, parts))


def _statuses(text: str) -> tuple[int, ...]:
    found = tuple(sorted({_number(part.strip()) for part in text.split(",")}))
    if wrong := [status for status in found if status not in REPLACEABLE]:
        raise ValueError(f"{wrong[0]} has no page: {', '.join(map(str, sorted(REPLACEABLE)))} have")
    return found


def _header_value(text: str) -> str:
    if text:
        quoted(text)
    return text


def _fixed_value(text: str) -> str:
    """Read the value of a header that may have variables in ingress-nginx."""
    if found := VARIABLE.search(text):
        raise ValueError(f"{text!r}: the gateway does not support nginx's variables, such as {found[0]}")
    return _header_value(text)


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    """Read lines `NAME: VALUE`."""
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    if any(not colon for _, colon, _ in pairs):
        raise ValueError("must have a line NAME: VALUE for each header")
    return tuple((changed_header(name.strip()), _header_value(value.strip())) for name, _, value in pairs)


def _word(text: str) -> str:
    return word(text)


def _words(text: str) -> tuple[str, ...]:
    parts = (part.strip() for part in text.split(","))
    return tuple(part if part == "*" else header_name(part) for part in parts if part)


def _origins(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if wrong := [part for part in parts if part != "*" and not ORIGIN.fullmatch(part)]:
        raise ValueError(f"{wrong[0]!r} is not an origin, for example https://example.com")
    return parts


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if wrong := [name for name in names if not SUBDOMAIN.fullmatch(name.removeprefix("*."))]:
        raise ValueError(f"{wrong[0]!r} is not a host name")
    return names


def _rewrite(text: str) -> str:
    if not text.startswith(("/", "$")) or not text.isprintable() or "?" in text or "#" in text:
        raise ValueError(f"{text!r} is not a path")
    return text


def _cookie_path(text: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", text):
        raise ValueError(f"{text!r} is not a path of a cookie")
    return text


def _same_site(text: str) -> str:
    if text.capitalize() not in ("Strict", "Lax", "None"):
        raise ValueError(f"{text!r} is not Strict, Lax or None")
    return text.capitalize()


def _redirect_status(text: str) -> int:
    if _number(text) not in (301, 302, 303, 307, 308):
        raise ValueError(f"{text} is not the status of a redirect: 301, 302, 303, 307, 308")
    return int(text)


def _url(text: str) -> Redirect:
    found = re.fullmatch(r"(https?)://([A-Za-z0-9.-]{1,253})(?::(\d{1,5}))?(/[^\s?#]*)?", _fixed_value(text))
    if not found:
        raise ValueError(f"{text!r} is not a URL without a query, for example https://example.com/new")
    scheme, host, port, path = found.groups()
    return Redirect(scheme, host.lower(), int(port or 0), PathChange(path) if path else None)


KNOWN = frozenset(
    {
        *("affinity", "affinity-mode", "allowlist-source-range", "app-root", "auth-realm", "auth-secret"),
        *(
            "auth-secret-type",
            "auth-type",
            "backend-protocol",
            "canary",
            "canary-by-cookie",
            "canary-by-header",
        ),
        *("canary-by-header-pattern", "canary-by-header-value", "canary-weight", "canary-weight-total"),
        *("cors-allow-credentials", "cors-allow-headers", "cors-allow-methods", "cors-allow-origin"),
        *(
            "cors-expose-headers",
            "cors-max-age",
            "custom-http-errors",
            "denylist-source-range",
            "enable-cors",
        ),
        *(
            "force-ssl-redirect",
            "limit-allowlist",
            "limit-burst-multiplier",
            "limit-connections",
            "limit-rpm",
        ),
        *("limit-rps", "limit-whitelist", "permanent-redirect", "permanent-redirect-code", "proxy-body-size"),
        *("proxy-connect-timeout", "proxy-read-timeout", "proxy-send-timeout", "request-headers"),
        *("response-headers", "rewrite-target", "server-alias", "session-cookie-expires"),
        *("session-cookie-max-age", "session-cookie-name", "session-cookie-path", "session-cookie-samesite"),
        *("session-cookie-secure", "ssl-redirect", "temporal-redirect", "temporal-redirect-code"),
        *("upstream-vhost", "use-regex", "whitelist-source-range", "x-forwarded-prefix"),
    }
)
"""The names that `settings` reads."""
