"""Training a selector: data, schedules, a loop that resumes exactly, validation."""
