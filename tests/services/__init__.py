"""Small real apps, good and bad, and how tests serve them as subprocesses."""
