"""A Debug Adapter Protocol server: messages and transport below, their meaning over a Session above."""
