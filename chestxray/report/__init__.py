"""Figures, the self-contained HTML report and the model card of a run, and the sentences that they print."""
