"""``python -m hebbian_engine`` is the ``hebbian`` command."""

import sys

from ._command import main

sys.exit(main())
