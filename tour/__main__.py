"""`make tour`: walks through the chapter, prints a report, and writes it as a page. Needs root.

The exit status is 1 if a step did not come out as expected.
"""

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tour import pictures
from tour.page import page
from tour.script import SECTIONS
from tour.stage import ROOT, staged
from tour.terminal import print_section, print_summary
from tour.walk import walk

STYLE = Path(__file__).with_name("page.css")
PAGE = ROOT / "build" / "tour.html"


def main() -> int:
    """Walk through all sections. Returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as folder, console.status("start a node, pods and hosts") as status:
        walked = []
        with staged(Path(folder)) as stage:
            for section, results in walk(stage, SECTIONS, status.update):
                print_section(console, section, results)
                walked.append((section, results))
            lab, services = pictures.lab(stage.lab.topology), stage.ask(["graph"])
    found = [result for _, results in walked for result in results]
    print_summary(console, found)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(walked, lab, services, STYLE.read_text()))
    console.print(f"The same as a page, with pictures: {PAGE}", highlight=False, soft_wrap=True)
    return 1 if any(result.verdict == "no" for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
