"""Python imports this at start when the folder is on PYTHONPATH."""

import faults

faults.install()
