"""The report in the terminal: each command with what it printed, next to what was expected."""

from rich.console import Console
from rich.text import Text

from tour.script import Section
from tour.walk import Result

COLOURS = {"yes": "green", "no": "red", "later": "yellow"}


def print_section(console: Console, section: Section, results: list[Result]) -> None:
    """Print a section of the chapter with its steps."""
    console.print(f"\n[bold]{section.title}[/]\n{section.about}\n", highlight=False)
    for result in results:
        for text in lines(result):
            console.print(text, soft_wrap=True)


def lines(result: Result) -> list[Text]:
    """Return the lines for one step: verdict and command, the book's command, what was expected and seen."""
    verdict = Text(f"{result.verdict:<6}", COLOURS[result.verdict])
    found = [Text.assemble(verdict, (f"$ {result.typed}", "bold"))]
    found += [_line("book", text) for text in result.step.book.splitlines()]
    if result.step.missing:
        return [*found, _line("", result.step.missing)]
    found += [_line("expected", text) for text in result.expected.splitlines()]
    found += [_line("seen", text) for text in result.output.splitlines()]
    return found + ([_line("note", result.step.note)] if result.step.note else [])


def _line(label: str, text: str) -> Text:
    return Text.assemble(f"      {label:<9}", (text, "dim" if label in ("book", "note") else ""))


def print_summary(console: Console, results: list[Result]) -> None:
    """Print how many steps came out as expected."""
    number = {verdict: sum(result.verdict == verdict for result in results) for verdict in COLOURS}
    later = f" {number['later']} are not there yet." if number["later"] else ""
    done = number["yes"] + number["no"]
    console.print(f"\n{number['yes']} of {done} steps came out as expected.{later}", highlight=False)
