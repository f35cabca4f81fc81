"""Network block devices: server and client."""
