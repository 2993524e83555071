"""For clinical use: operating points, predictive values, net benefit, patient level, prevalence, sample size."""
