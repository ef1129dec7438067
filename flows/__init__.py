"""What Prefect schedules: one flow per file; nothing is computed here."""

import os

# `import prefect` reports its use over the internet unless this is set before.
os.environ.setdefault("DO_NOT_TRACK", "1")
