"""Annotations of an Ingress: values, mistakes, and names that the gateway does not know."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from kproxy.decode.fields import FieldError
from kproxy.gateway.core.annotations import KNOWN, REFUSED, Annotations, Canary, Settings, settings
from kproxy.gateway.core.routes import (
    Affinity,
    BasicAuth,
    CorsFilter,
    HeaderFilter,
    Limits,
    Modified,
    PathChange,
    Redirect,
    User,
)
from kproxy.model import NamespacedName, Origin, Secret
from tests.unit.test_house import ROOT

OURS, NGINX = "kproxy.io/", "nginx.ingress.kubernetes.io/"
HASH = "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM."
SECRETS = {
    "users": {"auth": f"anna:{HASH}\n\nbob:{HASH}\n".encode()},
    "map": {"carl": HASH.encode()},
    "apr": {"auth": b"anna:$apr1$x$y"},
    "unknown": {"auth": b"anna:$6$rounds=a$x$y"},
    "slow": {"auth": f"anna:$2y$14${'a' * 53}".encode()},
    "rounds": {"auth": f"anna:$6$rounds=999999999$salt${'a' * 86}".encode()},
    "twice": {"auth": f"anna:{HASH}\nanna:$1$salt${'a' * 22}\n".encode()},
    "empty": {},
    "many": {f"user-{number}": HASH.encode() for number in range(1001)},
}


def find(name: str) -> Secret | None:
    if name not in SECRETS:
        return None
    return Secret(NamespacedName("default", name), Origin("f", ""), "Opaque", SECRETS[name])


def read(texts: dict[str, str], prefix: str = NGINX) -> Settings:
    return settings(Annotations({prefix + name: text for name, text in texts.items()}, find))[0]


def look_up(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    return found


CORS = {"enable-cors": "true"}
VARIABLES = ": the gateway does not support nginx's variables, such as"
AUTH = {"auth-type": "basic"}


@pytest.mark.parametrize("prefix", [OURS, NGINX])
@pytest.mark.parametrize(
    ("texts", "path", "value"),
    [
        ({}, "policy", Settings().policy),
        ({"rewrite-target": "/$2"}, "rewrite", "/$2"),
        ({"rewrite-target": "/$2"}, "regex", True),
        ({"use-regex": "true"}, "regex", True),
        ({"ssl-redirect": "false"}, "to_https", False),
        ({"ssl-redirect": "true"}, "to_https", None),
        ({"force-ssl-redirect": "true"}, "to_https", True),
        ({"proxy-body-size": "8m"}, "policy.body_size", 8 << 20),
        ({"proxy-body-size": "0"}, "policy.body_size", 0),
        ({"proxy-connect-timeout": "3"}, "policy.connect_timeout", 3000),
        ({"proxy-read-timeout": "2m", "proxy-send-timeout": "3"}, "policy.server_timeout", 120_000),
        ({"backend-protocol": "GRPC"}, "policy.protocol", "h2c"),
        ({"backend-protocol": "https"}, "policy.protocol", "https"),
        ({"whitelist-source-range": "10.0.0.0/8,::1"}, "policy.allowed", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ({"denylist-source-range": "10.0.0.1"}, "policy.denied", (ip_network("10.0.0.1"),)),
        ({"limit-rps": "5", "limit-whitelist": "10.0.0.1"}, "policy.limits", Limits(5, exempt=(ip_network("10.0.0.1"),))),
        ({"limit-rpm": "5", "limit-burst-multiplier": "2"}, "policy.limits", Limits(0, 5, burst=2)),
        ({"limit-connections": "7"}, "policy.limits", Limits(connections=7)),
        ({**CORS, "cors-allow-origin": "https://*.a.b:8443"}, "filters.0.origins", ("https://*.a.b:8443",)),
        ({**CORS, "cors-allow-credentials": "false", "cors-max-age": "1"}, "filters.0.max_age", 1),
        ({**CORS, "cors-expose-headers": "A, B"}, "filters.0.exposed", ("A", "B")),
        ({**AUTH, "auth-secret": "twice"}, "policy.auth", BasicAuth("Authentication Required", (User("anna", HASH),))),
        ({**AUTH, "auth-secret": "users"}, "policy.auth", BasicAuth("Authentication Required", (User("anna", HASH), User("bob", HASH)))),
        ({**AUTH, "auth-secret": "map", "auth-secret-type": "auth-map"}, "policy.auth.users", (User("carl", HASH),)),
        ({"affinity": "cookie"}, "policy.affinity", Affinity("INGRESSCOOKIE")),
        (
            {"affinity": "cookie", "session-cookie-name": "x", "session-cookie-max-age": "9", "session-cookie-samesite": "lax"},
            "policy.affinity",
            Affinity("x", 9, same_site="Lax"),
        ),
        ({"canary": "true", "canary-weight": "20"}, "canary", Canary(20)),
        ({"canary": "false", "canary-weight": "20"}, "canary", None),
        ({"canary": "true", "canary-by-header": "X", "canary-by-header-value": "y"}, "canary", Canary(header="X", value="y")),
        ({"permanent-redirect": "https://a.b:1/c"}, "reply", Redirect("https", "a.b", 1, PathChange("/c"), 301)),
        ({"temporal-redirect": "http://a.b", "temporal-redirect-code": "307"}, "reply", Redirect("http", "a.b", status=307)),
        ({"response-headers": "A: b: c\nD: "}, "filters", (HeaderFilter(Modified.RESPONSE, (("A", "b: c"), ("D", ""))),)),
        ({"custom-http-errors": "503,500"}, "policy.replaced_errors", (500, 503)),
        ({"server-alias": "A.b, *.c"}, "aliases", ("a.b", "*.c")),
    ],
)  # fmt: skip
def test_an_annotation(texts: dict[str, str], path: str, value: Any, prefix: str) -> None:
    assert look_up(read(texts, prefix), path) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("proxy-body-size", "8 apples", "'8 apples' is not a size, for example 8m"),
        ("proxy-read-timeout", "-1", "'-1' is not a time, for example 60s"),
        ("backend-protocol", "FCGI", "'FCGI' is not one of HTTP, HTTPS, GRPC, GRPCS, AUTO_HTTP"),
        ("whitelist-source-range", "10.0.0.0/33", "'10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
        ("denylist-source-range", "10.0.0.1," * 1001, "has more than 1000 networks"),
        ("limit-rps", "\N{SUPERSCRIPT TWO}", "'\N{SUPERSCRIPT TWO}' is not a number"),
        ("limit-burst-multiplier", "10001", "10001 is more than 10000"),
        ("canary-by-header-pattern", "((", "'((' is not a regular expression: missing ), unterminated subpattern at position 1"),
        ("canary-by-header-pattern", "(?R)", "'(?R)': '(?R)' is not allowed in a regular expression"),
        ("ssl-redirect", "no", "'no' is not true or false"),
        ("server-alias", "a.test, b..{x}", "'b..{x}' is not a host name"),
        ("auth-type", "digest", "'digest' is not basic"),
        ("affinity", "ip", "'ip' is not cookie"),
        ("rewrite-target", "a", "'a' is not a path"),
        ("rewrite-target", "/a\nhttp-request deny", "'/a\\nhttp-request deny' is not a path"),
        ("permanent-redirect", "javascript:x", "'javascript:x' is not a URL without a query, for example https://example.com/new"),
        ("permanent-redirect", "https://a.test$request_uri", f"'https://a.test$request_uri'{VARIABLES} $request_uri"),
        ("temporal-redirect", "https://a.test/x/$1", f"'https://a.test/x/$1'{VARIABLES} $1"),
        ("upstream-vhost", "$host", f"'$host'{VARIABLES} $host"),
        ("x-forwarded-prefix", "/a${b}c", f"'/a${{b}}c'{VARIABLES} ${{b}}"),
        ("response-headers", "no colon", "must have a line NAME: VALUE for each header"),
        ("response-headers", "A B: c", "'A B' is not the name of a header"),
        (
            "response-headers",
            "Content-Length: 3",
            "the header Content-Length belongs to the connection: it cannot be set or removed",
        ),
        ("response-headers", "A: b\x00c", "must not contain the character '\\x00'"),
        ("upstream-vhost", "a\r\nb", "must not contain the character '\\r'"),
        ("custom-http-errors", "418", "418 has no page: 400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504 have"),
        *((name, "x", f"the gateway does not support {why}") for name, why in REFUSED.items()),
    ],
)  # fmt: skip
def test_a_wrong_annotation_leaves_the_ingress_out(name: str, text: str, message: str) -> None:
    with pytest.raises(FieldError, match=re.escape(message)) as caught:
        read({"canary": "true", name: text})
    assert str(caught.value) == message
    assert caught.value.path == f"metadata.annotations[{NGINX}{name}]"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("none", "there is no Secret 'none' in this namespace"),
        ("empty", "Secret default/empty contains no users"),
        ("unknown", "Secret default/unknown: the password of 'anna' is not stored as crypt(3) does. Make it with htpasswd -5 or mkpasswd"),
        *((name, f"Secret default/{name}: HAProxy needs too long to check the password of 'anna'. Make it with htpasswd -5, or htpasswd -B -C 10") for name in ("slow", "rounds")),
        ("apr", "Secret default/apr: the password of 'anna' is not stored as crypt(3) does. Make it with htpasswd -5 or mkpasswd"),
    ],
)  # fmt: skip
def test_a_secret_without_users_leaves_the_ingress_out(secret: str, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        read({**AUTH, "auth-secret": secret})
    assert (caught.value.path, str(caught.value)) == (f"metadata.annotations[{NGINX}auth-secret]", message)


def test_a_secret_with_many_users_is_refused() -> None:
    with pytest.raises(FieldError, match=r"Secret default/many contains more than 1000 users"):
        read({**AUTH, "auth-secret": "many", "auth-secret-type": "auth-map"})


def test_custom_headers_of_a_config_map_have_another_name() -> None:
    ((field, message),) = settings(Annotations({f"{NGINX}custom-headers": "default/x"}, find))[1]
    assert field == f"metadata.annotations[{NGINX}custom-headers]"
    assert message.endswith("ConfigMaps are not read. Write kproxy.io/response-headers")


def test_our_own_name_wins() -> None:
    texts = {f"{NGINX}proxy-body-size": "1k", f"{OURS}proxy-body-size": "2k"}
    assert settings(Annotations(texts, find))[0].policy.body_size == 2048


def test_an_unknown_annotation_is_named_and_others_are_not() -> None:
    texts = {f"{NGINX}proxy-buffering": "on", f"{NGINX}ssl-redirect": "true", "cert-manager.io/issuer": "x"}
    field = f"metadata.annotations[{NGINX}proxy-buffering]"
    assert settings(Annotations(texts, find))[1] == [(field, "is not known, and has no effect")]


class Recording(Annotations):
    """Annotations that remember which names were asked for."""

    asked: set[str]

    def text(self, name: str, default: str = "") -> str:
        self.asked.add(name)
        return super().text(name, default)


def test_every_known_name_is_read() -> None:
    found = Recording({f"{OURS}{name}": text for name, text in EVERYTHING.items()}, find)
    found.asked = set()
    settings(found)
    assert KNOWN - found.asked == {"affinity-mode", "temporal-redirect", "temporal-redirect-code"}
    assert found.asked <= KNOWN


EVERYTHING = {
    **CORS,
    **AUTH,
    "auth-secret": "users",
    "affinity": "cookie",
    "canary": "true",
    "permanent-redirect": "https://a.b",
}


def test_the_page_has_every_annotation() -> None:
    page = Path(ROOT / "docs" / "ingress.md").read_text()
    named = set(re.findall(r"`([a-z0-9-]+)`", page))
    assert set(KNOWN) | REFUSED.keys() <= named


def test_cors_has_the_values_of_ingress_nginx() -> None:
    (cors,) = read(CORS).filters
    assert isinstance(cors, CorsFilter)
    assert (cors.origins, cors.credentials, cors.max_age) == (("*",), True, 1_728_000)
