"""How flows are offered to Prefect: deployments, schedules, services. For now the flows are run by hand: see prefect.yaml."""
