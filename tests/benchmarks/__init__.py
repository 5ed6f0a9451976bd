"""Measurements that print figures and gate nothing."""
