"""A bag through the real node, and everything that comes of it in one folder."""
