"""Ways out of the process: the same numbers in the forms that other tools read."""
