wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"text": "hello pipeline", "count": 3, "scores": [0.25, 0.5]}'
