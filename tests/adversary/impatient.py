"""`kproxy`, but it soon asks an API server again that fails. So an attack does not end in a long pause."""

from __future__ import annotations

import sys
from functools import partial

from kproxy.cli import main
from kproxy.sources.cluster import source
from kproxy.sources.cluster.reflector import Pacing

if __name__ == "__main__":
    vars(source)["Pacing"] = partial(Pacing, first_delay=0.02, max_delay=0.2, min_watch=0.05)
    sys.exit(main())
