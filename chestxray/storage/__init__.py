"""Files: written completely or not at all, checked against their schemas, kept in the cache."""
