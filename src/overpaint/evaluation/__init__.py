"""Measuring: metrics, calibration, the benchmark and the tables made from its rows."""
