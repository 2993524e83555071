"""An address becomes decoded, audited, split rows."""
