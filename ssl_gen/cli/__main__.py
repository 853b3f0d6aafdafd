"""`python -m ssl_gen.cli`."""

import sys

from ssl_gen.cli import main

sys.exit(main())
