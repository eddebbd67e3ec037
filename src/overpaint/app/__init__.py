"""The page and the REST API on this machine, for one photo at a time."""
