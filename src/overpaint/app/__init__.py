"""The REST API on this machine: one photo in, what was found out."""
