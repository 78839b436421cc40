"""What the rest stands on: errors, device, environment, progress, files."""
