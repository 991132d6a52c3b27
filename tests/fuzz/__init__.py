"""Fuzzing: mutated bytes go to everything that reads bytes of other parties."""
