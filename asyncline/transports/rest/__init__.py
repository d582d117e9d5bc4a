"""REST: `POST /{graph}` and the server's own pages, on aiohttp's low-level server.

    transport.py   RestTransport: sockets, the native routes, the life of one request
    connection.py  aiohttp's protocol, with the limits of the connection guard
    routes.py      the seam for the routes of other protocols
    intake.py      what all routes that run the graph have in common: admission, the body, the headers
    coding.py      gzip and deflate, of bodies that come and go
    body.py        a request body, of whatever media type, to a payload
    answer.py      an outcome to a response; the table from codes to HTTP statuses
    events.py      an answer in parts, as server-sent events
    oip.py         OipRoutes: /v2, the Open Inference Protocol
    paddle.py      PaddleRoute: POST /{name}/{method}, as Paddle Serving's REST gateway has it
    observe.py     ObserveRoutes: verdict, figures and timeline; the dashboard
    local.py       who may look into /admin where there is no token
    live.py        all figures each second, as server-sent events, for those who watch
    dashboard.html /dashboard: one self-contained page over that stream
    admin.py       /admin: what looks into the process
    query.py       queries of these pages
    openapi.py     /openapi.json, made from the Request's fields
    docs.html      /docs: one self-contained page that reads /openapi.json

No router, no middleware and no task of ours stand between aiohttp's parser and the Engine.
"""
