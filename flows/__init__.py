"""What Prefect schedules: one flow per file; nothing is computed here."""

import os

# `import prefect` reports its use over the internet unless this is set before.
os.environ.setdefault("DO_NOT_TRACK", "1")

# Threads that have nothing to do spin only shortly before they sleep: beside other work on the same
# cores endless spinning makes small steps, as the selector's are, up to a hundred times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
