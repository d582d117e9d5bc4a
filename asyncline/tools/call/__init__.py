"""`asyncline call`: one request to a server, from the command line.

arguments.py  `field=text`, `field:=json`, `field=@file`: words to a payload
answer.py     an answer as JSON for a person, or as it is
call.py       the call itself, and what its errors exit with
"""
