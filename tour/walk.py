"""Carries out the steps of the script, and keeps what each printed."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tour.expected import answers, missing
from tour.script import Section, Step
from tour.stage import PATIENCE, Stage

PAUSE = 0.1
PLACEHOLDER = re.compile(r"\{(kubia[a-z-]*|external-service|pod[1-3]|node)\}")


@dataclass(frozen=True)
class Result:
    """A step with its commands as they were typed, what it printed, and which expected lines are missing."""

    step: Step
    host: str
    command: str
    expected: str
    output: str
    missing: tuple[str, ...]
    pods: tuple[str, ...]
    """The kubia pods at that time."""

    @property
    def verdict(self) -> str:
        """`yes`, `no`, or `later` for what is not there yet."""
        return "later" if self.step.missing else "no" if self.missing else "yes"

    @property
    def answers(self) -> dict[str, int]:
        """The number of answers of each pod."""
        return answers(self.output)

    @property
    def destination(self) -> str:
        """What curl connects to, as it is typed; "" for other commands."""
        found = re.search(r"curl (?:--resolve \S+ |-\S+ )*([^\s;|]+)", self.command)
        return found[1] if found else ""

    @property
    def typed(self) -> str:
        """The command as it is typed on a machine with the lab."""
        if not self.host:
            return self.command
        simple = not re.search(r"[|;&$>]", self.command)
        quoted = self.command if simple else "sh -c '{}'".format(self.command.replace("'", "'\\''"))
        return f"netns-lab exec {self.host} -- {quoted}"


def walk(
    stage: Stage, sections: Iterable[Section], say: Callable[[str], None]
) -> Iterator[tuple[Section, list[Result]]]:
    """Carry out the sections in order, and yield each with its results. `say` is told the present command."""
    for section in sections:
        yield section, [_carried_out(stage, step, say) for step in section.steps]


def _carried_out(stage: Stage, step: Step, say: Callable[[str], None]) -> Result:
    host, command, expected = (_filled(text, stage) for text in (step.host, step.command, step.expected))
    say(command)
    output = "" if step.missing else _output(stage, host, command, expected)
    if command.startswith("netns-lab "):
        stage.learn()  # the names of the pods have changed
    pods = tuple(pod.name for pod in stage.kubia())
    return Result(step, host, command, expected, output, tuple(missing(expected, output)), pods)


def _output(stage: Stage, host: str, command: str, expected: str) -> str:
    """Run a command; again if it prints something else, because a change takes a moment to arrive."""
    end = time.monotonic() + PATIENCE
    while missing(expected, output := stage.run(host, command)) and time.monotonic() < end:
        if command.startswith(("netns-lab ", "cp ")):
            break  # once only
        time.sleep(PAUSE)
    return output


def _filled(text: str, stage: Stage) -> str:
    """Replace {name} by what it stands for, as soon as that is known. Other braces, as of JSONPath, stay."""
    wanted, end = set(PLACEHOLDER.findall(text)), time.monotonic() + PATIENCE
    while not wanted <= stage.names.keys():
        if time.monotonic() > end:
            raise TimeoutError(f"not known: {', '.join(sorted(wanted - stage.names.keys()))}")
        stage.learn()
    return PLACEHOLDER.sub(lambda found: stage.names[found[1]], text)
