"""What flows and the command line call: the checklist, the day pass, the end of day, the report, the status of a run.

- Each call here is one thing a person or a flow does; it opens what it needs and closes it again.
- Nothing here decides about an order, and nothing here imports Prefect.
"""
