"""The tuner: changes the settings of pools, one at a time, measures what that does, and undoes what does harm."""
