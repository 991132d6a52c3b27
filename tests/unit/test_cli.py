"""The commands as they are typed: usage errors, what they print, how they end."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import itertools
import json
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import kproxy
from kproxy.cli import main, settings_from
from kproxy.cli.parser import parse
from kproxy.settings.flags import flags_of
from kproxy.settings.settings import LocalMode, Origin
from kproxy.settings.verbs import VERBS, usage
from kproxy.show.kinds import KINDS
from tests.cases import cases
from tests.unit.make import manifest, service, slice_of
from tests.unit.nobody import NOBODY, as_nobody

DESCRIBED = [item for item in KINDS.items() if item[0] != "componentstatuses"]
"""The kinds that `describe` knows."""


# The verb whose usage is shown, and the sentence; "..." for any text in it.
@cases(
    """
    arguments                                           verb        message
    -                                                   -           Missing VERB.
    proxy                                               -           Unknown verb proxy.
    snyc                                                -           Unknown verb snyc. Did you mean sync?
    --verison                                           -           Unknown flag --verison. Did you mean --version?
    sync                                                sync        Missing flag -f PATH.
    sync -f x y                                         sync        Unexpected argument: y. For more than one path, repeat -f, or name their folder.
    sync -f x y z                                       sync        Unexpected arguments: y z. For more than one path, repeat -f, or name their folder.
    sync -f x --node-nam n                              sync        Unknown flag --node-nam. Did you mean --node-name?
    sync -f x --node n                                  sync        Unknown flag --node. Did you mean --nodes?
    sync -f x -manifests y                              sync        Unknown flag -m.
    compile -f                                          compile     -f needs a value.
    compile -f x --masquerade-all=yes                   compile     --masquerade-all: 'yes' is not true or false.
    compile -f x --service-cidr 10.0.0.1/8              compile     --service-cidr: 10.0.0.1/8 has host bits set.
    compile -f x --service-cidr 10.0.0.0/8,10.1.0.0/16  compile     ...at most one CIDR of each family is allowed.
    compile -f x --cluster-cidr pods                    compile     ...'pods' does not appear to be...
    compile -f x --node-ip 1.2.3                        compile     ...'1.2.3' does not appear to be an IPv4 or IPv6 address.
    compile -f x --node-ip 1.2.3.4,1.2.3.5              compile     ...at most one address of each family is allowed.
    compile -f x --service-node-port-range 2-1          compile     ...'2-1' is not FIRST-LAST within 1-65535.
    compile -f x --service-node-port-range 0-9          compile     ...'0-9' is not FIRST-LAST within 1-65535.
    compile -f x --service-node-port-range 80           compile     ...'80' is not FIRST-LAST within 1-65535.
    compile -f x --nft-version new                      compile     --nft-version: 'new' is not a version such as 1.0.6.
    compile -f x --nft-version 1.0.5                    compile     --nft-version: 1.0.5 is too old: kproxy's rules need nft 1.0.6 or later.
    run --detect-local-mode Cluster                     run         ...'Cluster' is not one of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix.
    run --healthz-bind-address here                     run         ...'here' is not ADDRESS:PORT, with an IPv6 address in brackets.
    env -f x                                            env         Missing POD.
    env a b -f x                                        env         Unexpected argument: b.
    env a -f x --format yaml                            env         --format: 'yaml' is not one of export, docker, json.
    get                                                 get         Missing KIND.
    get svc -o tall                                     get         --output: 'tall' is not one of wide, name, yaml, json, jsonpath=TEMPLATE, custom-columns=COLUMNS.
    get svc -o jsonpath                                 get         --output: jsonpath needs a value: jsonpath=TEMPLATE.
    get svc -o=custom-columns=                          get         --output: custom-columns needs a value: custom-columns=COLUMNS.
    get svc web -l a=b                                  get         A name cannot be combined with --selector.
    get svc -w -f x                                     get         --watch shows the running kproxy, and cannot be combined with -f.
    get all -w                                          get         --watch allows only one kind.
    get al                                              get         Unknown kind al. Did you mean all?
    get all/web                                         get         'all/web': all stands for several kinds, so it cannot have a name.
    get servics                                         get         Unknown kind servics. Did you mean services?
    get svc/web ep/web pod                              get         'pod' is not KIND/NAME, which cannot be combined with other forms.
    cleanup -f x                                        cleanup     Unknown flag -f.
    version --short                                     version     Unknown flag --short.
    help gett                                           help        Unknown verb gett. Did you mean get?
    completion tcsh                                     completion  SHELL: 'tcsh' is not one of bash, zsh, fish.
    """
)
def test_usage_errors(arguments: str, verb: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_usage_error(arguments, verb, message, capsys)


def test_an_unknown_kind_gets_the_kinds_of_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ", ".join(f"{plural} ({kind.aliases[-1]})" for plural, kind in DESCRIBED)
    is_usage_error("describe jobs", "describe", f"Unknown kind jobs. A KIND is {kinds}.", capsys)


def is_usage_error(arguments: str, verb: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert re.fullmatch("kproxy: " + ".*".join(map(re.escape, message.split("..."))), first), first
    command = f"kproxy {verb}".rstrip()
    assert rest == [*usage(VERBS.get(verb)), f"See '{command} --help'."]
    assert out == ""


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_one_page_of_80_columns(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for arguments in ([verb, "--help"], [verb, "-h"], ["help", verb]):
        assert main([word for word in arguments if word]) == 0
        pages.append(capsys.readouterr())
    assert pages == pages[:1] * 3
    out, err = pages[0]
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith(f"Usage: kproxy {verb}")
    for flag in flags_of(verb):
        assert f"\n  {flag.names}" in out


def test_example_commands_can_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS.values():
        assert 2 <= len(verb.examples) <= 3
        for _, command in verb.examples:
            words = shlex.split(re.sub(r"^eval \"\$\((.*)\)\"$", r"\1", command))
            end = next((place for place, word in enumerate(words) if word in ("|", ">")), None)
            assert words[0] == "kproxy"
            if words[1:] != ["--version"]:
                assert parse(words[1:end]).verb.name == words[1] == verb.name


FLAGS = {
    "-f a -f b --filename c --manifests=d": {"manifests": ("a", "b", "c", "d")},
    "-fa": {"manifests": ("a",)},
    "-f a --node-name=n1 --node-name N2.Example": {"node_name": "n2.example"},
    "-f a --nodes N1,n2": {"nodes": ("n1", "n2")},
    "-f a --masquerade-all": {"masquerade_all": True},
    "-f a --masquerade-all=true -v": {"masquerade_all": True, "verbose": True},
    "-f a --masquerade-all=false": {"masquerade_all": False},
    "-f a --detect-local-mode NodeCIDR": {"detect_local_mode": LocalMode.NODE_CIDR},
    "-f=a -v=true": {"manifests": ("a",), "verbose": True},
}


@pytest.mark.parametrize(("arguments", "expected"), FLAGS.items(), ids=FLAGS)
def test_spellings_of_flags(arguments: str, expected: dict[str, object]) -> None:
    settings = settings_from(["sync", *arguments.split()])
    assert {field: getattr(settings, field) for field in expected} == expected
    assert settings.origins == {"manifests": Origin.FLAG} | dict.fromkeys(expected, Origin.FLAG)


def test_a_switch_that_is_off_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("""
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
nftables: {masqueradeAll: true}
""")
    command = ["run", "--config", str(file)]
    assert settings_from(command).masquerade_all
    assert not settings_from([*command, "--masquerade-all=false"]).masquerade_all


WORDS = (("svc",), ("web",), ("-n", "shop"), ("--output=yaml",), ("--watch",))


@pytest.mark.parametrize("words", list(itertools.permutations(WORDS)))
def test_flags_and_operands_may_be_in_any_order(words: tuple[tuple[str, ...], ...]) -> None:
    call = parse(["get", *itertools.chain(*words)])
    assert call.flags == {"namespace": "shop", "output": "yaml", "watch": True}
    assert set(call.operands) == {"svc", "web"}


def test_words_after_two_dashes_are_operands() -> None:
    assert parse(["get", "svc", "--", "-o", "--watch=true"]).operands == ("svc", "-o", "--watch=true")


@pytest.mark.parametrize("arguments", ["version", "--version"])
def test_version(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([arguments]) == 0
    assert capsys.readouterr() == (f"kproxy {kproxy.__version__}\n", "")


class Compile:
    """`kproxy compile` of objects or files, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, *inputs: Path | dict[str, Any], flags: str = "") -> tuple[int, str, str]:
        """Exit status, output, errors. Objects go into one file each."""
        paths = []
        for number, given in enumerate(inputs):
            path = given if isinstance(given, Path) else self.folder / f"{number}.yaml"
            if not isinstance(given, Path):
                path.write_text(yaml.safe_dump(given))
            paths += ["-f", str(path)]
        state = ["--state-dir", str(self.folder / "state"), "--node-ip", "192.0.2.1", "--node-name", "n1"]
        status = main(["compile", *paths, *state, *flags.split()])
        out, err = self.capsys.readouterr()
        return status, out, err


@pytest.fixture(name="compile_")
def _compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compile:
    return Compile(tmp_path, capsys)


def three_of(own: str) -> dict[str, Any]:
    return slice_of(own, *(f"10.0.{n}.{ord(own)}" for n in range(3)))


MANY = [part for own in "abcdef" for part in (service(own, type="NodePort"), three_of(own))]


def test_equal_input_gives_equal_bytes(compile_: Compile) -> None:
    first = compile_(*MANY)
    assert first[0] == 0
    assert compile_(*MANY) == first


def test_the_order_of_files_and_objects_does_not_matter(compile_: Compile, tmp_path: Path) -> None:
    expected = compile_(*MANY)
    shuffled = random.Random(1).sample(MANY, len(MANY))
    assert compile_(*shuffled) == expected
    whole = tmp_path / "list.json"
    whole.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": MANY[::-1]}))
    assert compile_(whole) == expected


def test_problems_are_reported_and_the_rest_is_compiled(compile_: Compile, tmp_path: Path) -> None:
    status, out, err = compile_(
        service("a", ports=[{"port": 0}]), service("b", clusterIP="10.96.0.2"), tmp_path / "no.yaml"
    )
    assert status == 1
    assert err.splitlines() == [
        f"kproxy: {tmp_path}/no.yaml: No such file or directory",
        f"kproxy: {tmp_path}/0.yaml: Service default/a: spec.ports[0].port: 0 is not a port (1-65535)",
    ]
    assert "10.96.0.2 . tcp . 80" in out


def test_compile_writes_no_state(compile_: Compile, tmp_path: Path) -> None:
    compile_(service())
    assert not (tmp_path / "state").exists()


@cases(
    """
    flags                 present                                 absent
    -                     jhash                                   update @affinity-tcp { ct original ip6
    --nft-version 1.0.6   jhash                                   update @affinity-tcp { ct original ip6
    --nft-version v1.1.2  jhash                                   update @affinity-tcp { ct original ip6
    --nft-version 1.1.3   update @affinity-tcp { ct original ip6  jhash
    --nft-version 2       update @affinity-tcp { ct original ip6  jhash
    """
)
def test_the_script_depends_on_the_version_of_nft(
    compile_: Compile, flags: str, present: str, absent: str
) -> None:
    objects = [
        service(clusterIP="fd00:96::1", sessionAffinity="ClientIP"),
        manifest("Endpoints", subsets=[{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]),
    ]
    status, out, err = compile_(*objects, flags=f"--service-cidr fd00:96::/112 {flags}")
    assert (status, err) == (0, "")
    assert present in out
    assert absent not in out


def run(*arguments: str, user: int | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kproxy", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, user=user, check=False)


@as_nobody
def test_compile_needs_no_root() -> None:
    flags = ["-f", "-", "--state-dir", "/nonexistent", "--node-ip", "192.0.2.1"]
    done = run("compile", *flags, user=NOBODY, text=yaml.safe_dump(service()))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# Written by `kproxy compile`")


@as_nobody
@pytest.mark.parametrize("verb", ["get", "describe"])
def test_get_and_describe_need_no_root(verb: str) -> None:
    flags = ["-f", "-", "--state-dir", "/nonexistent"]
    done = run(verb, "svc", "web", *flags, user=NOBODY, text=yaml.safe_dump(service()))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME" if verb == "get" else "Name:")


@as_nobody
@pytest.mark.parametrize("arguments", [["sync", "-f", "-"], ["cleanup"]])
def test_sync_and_cleanup_need_root(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, "--state-dir", str(tmp_path / "state"), user=NOBODY)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kproxy: kproxy must run as root to change the kernel's tables. Run it with sudo.\n"


def test_overlapping_cluster_cidrs_are_merged(compile_: Compile) -> None:
    """nft rejects overlapping intervals."""
    status, out, err = compile_(service(), flags="--cluster-cidr 10.0.0.0/8,10.1.0.0/16,fd00:1::/48")
    assert (status, err) == (0, "")
    assert ("10.0.0.0/8" in out, "10.1.0.0/16" in out, "fd00:1::/48" in out) == (True, False, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--manifests x --kubeconfig y", "not from both"),
        ("--manifests x --detect-local-mode BridgeInterface", "needs --pod-bridge-interface"),
        ("--kubeconfig /nonexistent/y", "kproxy: /nonexistent/y: No such file or directory."),
        ("--manifests /nonexistent/x", "kproxy: /nonexistent/x: No such file or directory."),
        ("", "Not running in a pod: give -f PATH or --kubeconfig FILE."),
        ("--gateway", "--gateway needs manifests: -f PATH."),
        ("--manifests -", "-f cannot follow standard input"),
        ("--manifests x --sync-period 0", "--sync-period must be at least 1s"),
        ("--manifests x --load-balancer-pool 10.100.0.0/16", "overlap"),
    ],
)
def test_a_daemon_does_not_start_with_a_usage_error(
    flags: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started_with(flags, monkeypatch) == 2
    assert message in capsys.readouterr().err


KUBECONFIG = """current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "http://192.0.2.1"}}]
users: [{name: u, user: {USER}}]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {", "line 2: not YAML: did not find expected node content."),
        ("a: 1", "current-context: is missing: name one of the contexts."),
        (KUBECONFIG.replace("USER", "tokenFile: /none"), "tokenFile: /none: No such file or directory."),
        (KUBECONFIG.replace("USER", "client-key: /none"), "client-key: /none: No such file or directory."),
        (KUBECONFIG.replace("USER", "token: 5"), "users[0].user.token: expected a string, got 5: in quotes."),
    ],
)
def test_a_daemon_does_not_start_with_an_invalid_kubeconfig(
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    assert started_with(f"--kubeconfig {path}", monkeypatch) == 2
    assert f"kproxy: {path}: {message}" in capsys.readouterr().err


def started_with(flags: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `kproxy run` up to the start of the daemon, which must not happen. Returns the exit status."""

    def run_daemon(_: object) -> int:
        raise AssertionError("it starts")

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kproxy.cli.run.require_root", lambda: None)
    monkeypatch.setattr("kproxy.cli.run.run_daemon", run_daemon)
    return main(["run", *flags.split()])


def test_an_unexpected_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_daemon(_: object) -> int:
        raise KeyError("a\nb")

    monkeypatch.setattr("kproxy.cli.run.require_root", lambda: None)
    monkeypatch.setattr("kproxy.cli.run.run_daemon", run_daemon)
    assert main(["run", "-f", "/"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kproxy: Internal error: KeyError: 'a\\nb' (run_daemon in ")
    assert line.count(", called by ") == 2
