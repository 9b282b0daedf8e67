"""Research variants: a learned phase, one model for several targets."""
