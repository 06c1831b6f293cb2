"""Data for tuning: files of conversations, and the samples that models are trained on."""
