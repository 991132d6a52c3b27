"""``python -m netns_lab`` is ``netns-lab``."""

from netns_lab.cli import main

main()
