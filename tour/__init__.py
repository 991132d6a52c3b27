"""`make tour`: a chapter about Services, from top to bottom, with real packets in a lab on this machine.

`make demo` (demo.py) is a shorter walk, which checks claims about the chapter's Services and prints a report.

    chapter/   the manifests, in the forms of the book
    script.py  the steps: the book's command, the command here, and what must come of it
    stage.py   the lab with its nodes, pods and hosts outside, and kproxy on the nodes
    expected.py  compares an output with what is expected (pure)
    terminal.py, page.py, pictures.py  the report

Each command is one that a reader can type. Only `netns-lab` is left out of the machine's PATH: the tour
calls the same functions, because the lab is its own.
"""
