"""Figures for clinical use: operating points, predictive values, net benefit, patients, prevalence, sample size."""
