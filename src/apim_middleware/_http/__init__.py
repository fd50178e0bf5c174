"""Facts about HTTP as pure functions: no await, no clock, no I/O."""
