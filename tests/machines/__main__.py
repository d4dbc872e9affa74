"""`python -m tests.machines`: see `netns-scripts/test-machines`."""

import sys

from tests.machines import main

sys.exit(main())
