"""Training of inpainters: each with the losses of its own paper."""
