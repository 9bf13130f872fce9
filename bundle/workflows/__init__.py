"""The lists: what each task does, step by step, on either side of the gap."""
