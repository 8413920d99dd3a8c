"""Adapters: each turns the traps of one kind of machine into calls of an access port."""
