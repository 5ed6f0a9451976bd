"""What tests of several rooms share: a scripted sync service on real sockets, and waiting for conditions."""
