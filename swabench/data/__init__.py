"""Images: found, fetched, verified, split."""
