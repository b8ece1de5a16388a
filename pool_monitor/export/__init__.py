"""Exports: the numbers of a monitor in the forms that other tools read."""
