"""One contract for both backplanes, and what only Redis can do."""
