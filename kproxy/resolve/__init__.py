"""Which endpoints a service port has, and on which frontends it is shown. Pure."""
