"""The matrix of detectors, training data, inpainters, photos, masks and processing, as tables."""
