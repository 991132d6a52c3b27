"""Routes, and HAProxy's configuration made from them."""
