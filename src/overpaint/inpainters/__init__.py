"""Inpainters, one paper a file. Importing this package registers them all."""
