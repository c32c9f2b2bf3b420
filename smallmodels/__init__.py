"""Distil and fine-tune small open models, and know what they cost.

Import the modules, not names from here: `from smallmodels import losses, training`. Importing this package
imports nothing heavy.
"""

__version__ = "0.1.0"
