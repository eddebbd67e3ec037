"""A report of photos that can be printed, kept and repeated: an HTML page and a JSON file."""
