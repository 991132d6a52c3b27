"""Checks the documentation: links, flags, manifests, the rulesets that it shows, and the tour.

Two marks in the Markdown select what is checked:

    <!-- compiled -->   the next block is part of the output of `kproxy compile` for the README's manifests
                        (a line `...` stands for omitted lines)
    $ and other$        in a console block of the tour: a command on this machine, or on the other one
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.decode import decode
from kproxy.settings.flags import flags_of
from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS
from kproxy.settings.verbs import VERBS
from kproxy.sources.files import read_documents

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FIRST_STEPS = ROOT / "docs" / "first-steps.md"
VIEWING = ROOT / "docs" / "viewing.md"
LAB = ROOT / "netns-lab" / "README.md"
DNS = ROOT / "kproxy" / "dns" / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
ROOMS = sorted((ROOT / "kproxy").glob("*/README.md"))
PAGES = [
    README,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    LAB,
    ROOT / "tests" / "gateway" / "README.md",
    *ROOMS,
    *DOCS,
]
FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")
NODE = ["--node-name", "debian", "--node-ip", "192.0.2.10"]


def prose(text: str) -> str:
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor that GitHub and others derive from a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(title) for title in re.findall(r"^#+ (.*)$", prose(page.read_text()), re.MULTILINE)}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def targets(page: Path) -> set[Path]:
    """The files that a page links to."""
    return {(page.parent / link.partition("#")[0]).resolve() for link in links(page) if ":" not in link}


def test_the_readme_links_to_every_page() -> None:
    assert set(DOCS) - targets(README) == set()


def test_every_page_is_linked_from_another_one() -> None:
    linked = {target for page in PAGES for target in targets(page) - {page}}
    assert {page.relative_to(ROOT) for page in {*PAGES} - {README} - linked} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_begins_with_a_sentence(page: Path) -> None:
    """It says what the page is for. A table or a heading does not."""
    assert re.match(r"# .+\n\n(?!```|[#|<\s])", page.read_text())


def test_tests_that_the_docs_name_exist() -> None:
    modules = [path for folder in ("tests", "netns-lab") for path in (ROOT / folder).rglob("test_*.py")]
    defined = {
        name for path in modules for name in re.findall(r"^\s*(?:async )?def (\w+)", path.read_text(), re.M)
    }
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named - defined == set()


LISTING = [page for page in ROOMS if re.search(r"^\| (?:module|file) \|", page.read_text(), re.MULTILINE)]
"""The pages of rooms that list their modules."""


@pytest.mark.parametrize("page", LISTING, ids=lambda page: page.parent.name)
def test_the_page_of_a_room_lists_every_module(page: Path) -> None:
    named = {Path(name).name for name in re.findall(r"`([\w/]+\.py)`", page.read_text())}
    assert {module.name for module in page.parent.rglob("*.py")} - {"__init__.py"} - named == set()


# --- flags ---


HELP = {"-h", "--help"}
FLAGS_OF = {
    name: HELP | {spelling for flag in flags_of(name) for spelling in flag.spellings} for name in VERBS
}
FLAGS_OF["run"] |= {flag.name for flag in KUBE_PROXY_FLAGS}


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Verb and arguments of every `kproxy VERB ...` in code, in fences and in lines."""
    code = re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL) + re.findall(r"`[^`\n]+`", text)
    for match in re.finditer(r"\bkproxy (\w+)((?: [^`\n|;#>]*)?)", "\n".join(code)):
        yield match[1], match[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_flags_that_the_docs_give_them(page: Path) -> None:
    wrong = []
    for verb, arguments in commands(page.read_text()):
        if verb in VERBS:
            wrong += [(verb, flag) for flag in set(FLAG.findall(arguments)) - FLAGS_OF[verb]]
    assert wrong == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != LAB], ids=lambda page: page.name)
def test_flags_that_the_docs_name_exist(page: Path) -> None:
    known = {"--version"}.union(*FLAGS_OF.values())
    # A flag alone in running text is one of kproxy. Flags of other commands follow the command.
    named = {flag for code in re.findall(r"`(--[^`\n]+)`", page.read_text()) for flag in FLAG.findall(code)}
    assert named <= known


# --- the tour's manifests, and what is compiled from them ---


def heredocs() -> dict[str, str]:
    """The files that the tour by hand creates."""
    text = FIRST_STEPS.read_text()
    return dict(re.findall(r"^cat > (\S+) <<'EOF'\n(.*?)^EOF$", text, re.MULTILINE | re.DOTALL))


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """The tour's folder of manifests in its first state."""
    folder = tmp_path / "services"
    folder.mkdir()
    for name, content in heredocs().items():
        if name.startswith("services/"):
            (tmp_path / name).write_text(content)
    second = (folder / "web-1.yaml").read_text().replace("web-1", "web-2").replace("10.244.1.2", "10.244.2.2")
    (folder / "web-2.yaml").write_text(second)
    return folder


def test_the_manifests_decode(services: Path) -> None:
    documents, problems = read_documents([str(services)])
    decoded = decode(documents)
    assert problems + decoded.problems == []
    assert not decoded.ignored
    assert (len(decoded.state.services), len(decoded.state.pods)) == (1, 2)


def compiled_excerpts() -> list[tuple[str, str]]:
    pattern = re.compile(r"^<!-- compiled -->\n+```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(page.name, block) for page in PAGES for block in pattern.findall(page.read_text())]


def plain(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def test_the_rulesets_shown_are_what_is_compiled(services: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kproxy", "compile", "-f", str(services), *NODE]
    command += ["--state-dir", str(tmp_path / "state")]
    printed = plain(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    excerpts = compiled_excerpts()
    assert excerpts
    for name, block in excerpts:
        position = 0
        for part in re.split(r"^\.\.\.$", plain(block), flags=re.MULTILINE):
            found = printed.find(part.strip(), position)
            assert found >= 0, f"{name} shows what is not compiled, or not in this order:\n{part}"
            position = found + len(part.strip())


def test_the_tables_shown_are_those_of_the_tours_objects(services: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```console\n(\$ kproxy get .*?)^```$", VIEWING.read_text(), re.M | re.S)
    assert len(blocks) > 1
    for typed, expected in re.findall(r"^\$ kproxy (.*)\n((?:[^$].*\n)*)", "".join(blocks), re.M):
        arguments = shlex.split(typed.replace("services/", str(services)))
        command = [sys.executable, "-m", "kproxy", *arguments, "--state-dir", str(tmp_path / "state")]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == expected


def test_what_the_page_about_dns_shows_is_printed(services: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```console\n(\$ kproxy .*?)^```$", DNS.read_text(), re.M | re.S)
    examples = [part for block in blocks for part in re.split(r"^\$ kproxy dns ", block, flags=re.M) if part]
    assert len(examples) > 2
    for typed, expected in (example.split("\n", 1) for example in examples):
        arguments = f"--state-dir state {typed.replace('services/', str(services))}"
        command = f"{sys.executable} -m kproxy dns {arguments}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == expected


def test_the_variables_shown_are_those_of_the_tours_pod(services: Path, tmp_path: Path) -> None:
    (shown,) = re.findall(r"^\$ kproxy env web-1 -f services/\n(.*?)^```$", VIEWING.read_text(), re.M | re.S)
    command = [sys.executable, "-m", "kproxy", "env", "web-1", "-f", str(services)]
    command += ["--state-dir", str(tmp_path / "state")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == shown


# --- the tour ---

# A machine and another one in its network. Both disappear with the first process.
BOX = r"""
mount -t tmpfs none /run; mkdir /run/netns /run/lock
mkdir -p /var/lib; mount -t tmpfs none /var/lib
mkdir /run/bin
printf '#!/bin/sh\nexec %s -m kproxy "$@"\n' "$PYTHON" > /run/bin/kproxy
printf '#!/bin/sh\nexec "$@"\n' > /run/bin/sudo
printf '#!/bin/sh\nexec %s -sS "$@"\n' "$(command -v curl)" > /run/bin/curl
chmod +x /run/bin/*
export PATH="/run/bin:$PATH"
hostname debian
ip link set lo up
ip netns add other
ip link add enp1s0 type veth peer name eth0 netns other
ip addr add 192.0.2.10/24 dev enp1s0; ip link set enp1s0 up
ip route add default via 192.0.2.1
ip -n other addr add 192.0.2.20/24 dev eth0; ip -n other link set eth0 up
mkdir /run/home; cd /run/home
"""
UNSHARE = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]


def tour(page: Path) -> Iterator[tuple[str, str | None]]:
    """The commands of a page's tour, each with its expected output (None: not shown)."""
    (section,) = re.findall(r"^## Five minutes.*?$(.*?)^## ", page.read_text() + "\n## ", re.M | re.S)
    for language, block in re.findall(r"^```(sh|console)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        if language == "sh":
            yield block, None
            continue
        for typed, expected in re.findall(r"^((?:other)?\$ .*\n)((?:(?!\$ |other\$ ).*\n)*)", block, re.M):
            on, _, command = typed.partition("$ ")
            yield ("ip netns exec other " if on else "") + command, expected


def usual(output: str) -> str:
    """The output without what differs between runs: random choices, times, the order of elements."""
    for pattern, replacement in (
        (r"counter packets \d+ bytes \d+", "counter"),
        (r"expires \w+", "expires"),
        (r"time \d+ms", "time"),
        (r"(curl: \(\d+\)).*", r"\1"),
        (r"(?m)^ +\d{1,2} I am web", "some I am web"),  # but not 100 of 100
        (r"(?m)^I am web-(\d), you are 10\.244\.\1\.1$", "either"),
        (r"(?m)^I am web-\d$", "either"),
        (r"in \d+ ms", "in some ms"),
        (r"(?m)^([0-9a-f]{64}|web-\d)\n", ""),  # containers that podman starts or ends
    ):
        output = re.sub(pattern, replacement, output)
    output = re.sub(r"elements = \{[^}]*\}", lambda m: str(sorted(re.split(r",\s+", m[0][12:-2]))), output)
    return " ".join(output.split())


WAIT = """
for n in 1 2; do until curl 10.244.$n.2:8080 >/dev/null 2>&1; do sleep 0.1; done; done
"""
"""Wait until the servers listen."""


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 350


PATH = f"{os.defpath}:/usr/sbin:/sbin"


def needs(*programs: str) -> None:
    """Skip the test if this machine lacks a program."""
    for program in programs:
        if not shutil.which(program, path=PATH):
            pytest.skip(f"no {program} on this machine")


@pytest.mark.lab
def test_the_tour_by_hand_goes_as_its_page_says() -> None:
    needs("curl", "sysctl")
    can_ping = shutil.which("ping", path=PATH)
    follow([step for step in tour(FIRST_STEPS) if can_ping or "ping" not in step[0]], BOX, {"web.py": WAIT})


CONTAINERS = r"""
mount -t tmpfs none /mnt; mkdir -p /mnt/networks /mnt/root/bin /mnt/root/tmp
umount /sys/fs/cgroup/unified 2>/dev/null || true
cat > /mnt/containers.conf <<CONF
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "/mnt/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "crun"
tmp_dir = "/mnt/tmp"
CONF
export CONTAINERS_CONF=/mnt/containers.conf
printf '#!/bin/sh\nexec %s --root /mnt/storage --runroot /mnt/state --storage-driver vfs "$@"\n' \
    "$(command -v podman)" > /run/bin/podman
printf '#!/bin/sh\npodman system service --time 0 unix:///run/podman/podman.sock &\n' > /run/bin/systemctl
ln -sf "$(dirname "$PYTHON")/kproxy" /run/bin/kproxy
chmod +x /run/bin/podman /run/bin/systemctl
mkdir /run/podman; cp /bin/busybox /mnt/root/bin
for tool in sh httpd wget; do ln -s busybox /mnt/root/bin/$tool; done
for library in $({ ldd /bin/busybox || true; } 2>&1 | grep -o '/[^ )]*' || true); do
    cp --parents -L "$library" /mnt/root
done
tar -C /mnt/root -c . | podman import -q - docker.io/library/busybox >/dev/null
"""
"""Podman with storage of its own, and an image of this machine's busybox under the name of the real one."""


@pytest.mark.lab
def test_the_tour_with_containers_goes_as_the_readme_says() -> None:
    needs("curl", "podman", "crun", "pkill")
    await_ = "for _ in $(seq 300); do {} && break; sleep 0.1; done\n"
    waits = {
        "kproxy run": await_.format("grep -qs 'kproxy is ready' kproxy.log"),
        "podman stop": await_.format("! kproxy get endpoints web 2>&1 | grep -q -e 10.88.0.3 -e status"),
        "sed -i": await_.format("! kproxy get svc web >/dev/null 2>&1"),
        "pkill": await_.format("! pkill -0 -x kproxy"),
    }
    follow(list(tour(README)), BOX + CONTAINERS, waits)


def follow(steps: list[tuple[str, str | None]], box: str, waits: dict[str, str]) -> None:
    """Carry out a tour in a box, and compare the outputs. After commands that contain a key, wait as told."""
    environment = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "PATH": PATH}
    script = box
    for number, (command, _) in enumerate(steps):
        wait = "".join(wait for part, wait in waits.items() if part in command)
        script += f"echo '@@@ {number}'\n{command}\n{wait}"
    done = subprocess.run(
        [*UNSHARE, "bash", "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=300,
    )
    printed = re.split(r"^@@@ \d+\n", done.stdout, flags=re.MULTILINE)
    assert printed.pop(0) == ""
    for (command, expected), output in zip(steps, printed, strict=True):
        assert usual(output) == usual(expected or ""), command
