"""The development authorization server: it stands in for the hosted one, on loopback alone. Never use it for real.

    python -m sample_apis.authorization_server --help

`catalogue.py` says which APIs, clients and users there are; `store.py` and `keys.py` keep the state; `tokens.py` mints.
`oauth_request.py` reads requests, `server.py` is Authlib's server, `grants.py` its token endpoint, `token_status.py`
what is asked about tokens, `authorize.py` what a person sees (`pages/`), and `app.py` puts it all together.
"""
