"""What can go wrong between a device and its service, and processes that are killed."""
