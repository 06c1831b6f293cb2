"""Measuring a compressed version beside the original."""
