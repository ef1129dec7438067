"""What Prefect schedules: one flow per file; nothing is computed here."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# `import prefect` reports its use over the internet unless this is set before.
os.environ.setdefault("DO_NOT_TRACK", "1")

# Threads that have nothing to do spin only shortly before they sleep: beside other work on the same
# cores endless spinning makes small steps, as the selector's are, up to a hundred times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# What is to compute on the CPU sees no GPU: libraries that find one take memory of it.
if os.environ.get("SOLA_DEVICE") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Prefect and others look for a home folder when they are imported: who has none gets an empty one.
try:
    Path.home()
except RuntimeError:
    os.environ["HOME"] = tempfile.mkdtemp(prefix="sola-home-")
    atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
