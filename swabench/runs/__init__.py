"""Carries a study out: inputs, features, training, records."""
