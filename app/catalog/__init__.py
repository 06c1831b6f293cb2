"""The base models the platform knows: data files, and the reader that checks them."""
