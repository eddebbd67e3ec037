"""Photos, masks and what is made of them: sources, degradations, universal data."""
