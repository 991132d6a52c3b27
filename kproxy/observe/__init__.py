"""What others see of a daemon: health, metrics, the log, the service manager."""
