"""The qcow2 format: header, refcounts, mapping, snapshots, bitmaps, check and repair."""
