"""The one training loop and the two kinds of learner it drives."""
