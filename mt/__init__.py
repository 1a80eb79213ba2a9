"""mt: a small, fast, careful trainer for machine translation."""
