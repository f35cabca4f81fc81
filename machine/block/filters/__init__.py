"""Filter nodes and groups: copy on read, copy before write, quorum, write recorder."""
