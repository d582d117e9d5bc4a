wrk.method = "POST"
wrk.body = '{"key": ["text", "scores"], "value": ["hello pipeline", "0.25, 0.5"]}'
