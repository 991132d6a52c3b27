"""`python -m kproxy` is `kproxy`."""

import sys

from kproxy.cli import main

sys.exit(main())
