"""What both sides of the wire agree on. Pure: nothing in here does any I/O."""
