"""Virtio 1.x devices: the transport (``mmio``) and the queues know nothing of what a device does."""
