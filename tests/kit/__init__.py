"""What tests of several rooms share: a scripted and a small sync service on real sockets, with faults to order."""
