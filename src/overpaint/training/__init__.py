"""One loop for every run: the task says what a step is, the loop does all the rest."""
