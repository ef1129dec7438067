"""Language search over all mask tracks."""

import tasks.stages  # noqa: F401 - it lists the stages of this package, which read its others
