"""Images: found, fetched, verified, decoded, split."""
