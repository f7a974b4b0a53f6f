"""Music from the command line with ACE-Step 1.5."""

__version__ = "0.1.0"
