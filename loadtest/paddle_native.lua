wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"text": "hello pipeline", "scores": "0.25, 0.5"}'
