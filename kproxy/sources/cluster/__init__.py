"""The Kubernetes API as a source: list and watch of Services, EndpointSlices and this node's Node.

connection (effect) -> reflector -> events -> cache
  HTTP, credentials     list, watch   |____ pure ____|
"""
