"""Building blocks that three or more models share; they know nothing of files or losses."""
