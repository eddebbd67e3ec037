"""What is done with a trained detector: tiles, calibration, detection, report."""
