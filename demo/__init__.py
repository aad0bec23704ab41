"""What a person sees: the page, what it pulls and what is pushed to it, and the named endpoints."""
