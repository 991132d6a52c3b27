"""The routes of the gateway, through a running HAProxy."""
