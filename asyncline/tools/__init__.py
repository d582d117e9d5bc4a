"""What the command line offers beside serving.

new.py      `asyncline new`: writes a small app from new_app/
top.py      `asyncline top`
reload.py   `asyncline serve --reload`
advise/     `asyncline check --advise`
"""
