"""The Linux kernel of a guest, read from its memory: symbols, types, tasks, log, modules, page tables."""
