"""The tuner: changes the settings of pools, one at a time, and keeps what has helped."""
