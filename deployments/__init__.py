"""How flows are offered to Prefect: the deployments, what registers and serves them, the server they are registered at."""
