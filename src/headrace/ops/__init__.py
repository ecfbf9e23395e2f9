"""Operating a live flow: configuration, secrets, logs, metrics, health, the supervisor of workers, the doctor."""
