"""Data: reading a data set from its address, decoding, auditing and splitting it."""
