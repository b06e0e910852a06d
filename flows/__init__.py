"""Prefect flows: the order of a day's steps. No decision about an order is made here, and nothing here is retried."""
