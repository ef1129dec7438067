"""What makes the tables of a video, one module for each stage."""
