"""Music from the command line with ACE-Step 1.5."""

__version__ = "0.1.0"
#: What a shell sets when it wants a word completed.
COMPLETING = "_ACESTEP_COMPLETE"
