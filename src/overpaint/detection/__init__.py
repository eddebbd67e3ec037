"""One photo in, what was found out: network, tiles, calibration, verdict, report."""
