"""`python -m bench`, which is `make bench`."""

import sys

from bench.run import main

sys.exit(main())
