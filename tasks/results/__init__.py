"""What is made of the predictions of a run."""
