"""Guest architectures as data, for debuggers and people; the translator has its own."""
