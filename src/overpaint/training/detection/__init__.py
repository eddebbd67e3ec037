"""Training of detectors: each with the losses of its own paper."""
