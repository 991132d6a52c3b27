"""Routes: what they attach to, what serves them, and HAProxy's configuration made from them."""
