"""modelunit: bring your own model weights, get an elastic inference endpoint on your own machines."""

__version__ = "0.1.0"
"""Part of every revision: units of another version are replaced."""
