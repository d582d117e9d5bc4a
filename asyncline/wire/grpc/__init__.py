"""Messages of the services that every gRPC server has: health and reflection.

schema.py          their protobuf messages, in a pool of their own
health.py          HealthCheckRequest and HealthCheckResponse
reflection.py      ServerReflectionRequest and its answers, from the files that declare services
*.proto            where they are declared; descriptors.py is made from these
"""
