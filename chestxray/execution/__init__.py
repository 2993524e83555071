"""Work that splits into parts, done by processes of this machine or by the nodes of a Ray cluster."""
