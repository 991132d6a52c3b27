"""What Ingresses cost: the time until HAProxy has them, and memory."""
