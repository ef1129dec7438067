"""A video of a user's own: its clips, and what is written of them."""
