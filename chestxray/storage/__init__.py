"""Files: written whole or not at all, checked against their forms, kept in the cache."""
