"""Figures without a browser: `python -m explorer map cat.jpg`. The same functions that the app calls."""
