"""The arms race: a detector against inpainters that are trained against it, round by round."""
