"""Marks and metadata of a picture file: how they are read, written and checked."""
