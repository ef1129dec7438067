"""A video of a user's own: its clips, and what is written of them."""

DATASET, SPLIT = "folder", "segment"  # of its clips in the warehouse
