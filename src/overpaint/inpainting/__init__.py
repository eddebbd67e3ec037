"""One photo and a mask in, the filled photo out: holes, context windows, the written file."""
