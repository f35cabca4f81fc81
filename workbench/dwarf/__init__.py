"""What debug information tells beside lines: types, variables and where they lie, and how frames unwind."""
