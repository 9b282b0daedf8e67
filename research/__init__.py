"""A research variant: a learned phase."""
