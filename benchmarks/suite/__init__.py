"""Small pieces of work. Their costs are compared with a baseline (`make bench-suite`) and gated in the tests."""
