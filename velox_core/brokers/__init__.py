"""Brokers: one adapter each behind `ports.Broker`, and what they share. They translate and decide nothing."""
