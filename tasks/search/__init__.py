"""Language search over all mask tracks."""

import tasks.stages  # noqa: F401 - first: it has the stages of this package, which read others
