"""`python -m spqr_checks.cli`, for places where the `spqr` script is not on the path."""

import sys

from spqr_checks.cli.main import main

sys.exit(main())
