"""A bag through the real node, compared with offline scoring: session, recorder, report."""
