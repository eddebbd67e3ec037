"""A report of a photo that can be printed, kept and repeated: one HTML file and its JSON twin."""
