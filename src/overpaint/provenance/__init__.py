"""Marks and metadata of a picture's file: read, written, checked."""
