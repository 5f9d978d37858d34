"""Settings of the whole test suite."""
