"""The loss around trained weights: measured, and the mathematics of it."""
