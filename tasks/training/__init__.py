"""From pseudo-labels to a run."""
