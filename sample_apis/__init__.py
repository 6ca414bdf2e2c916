"""The Organizer: sample APIs that share one resource server, written to be copied.

`organizer.py` is the resource server, `contacts/` (Flask) and `calendars/` (Starlette) are the services that it
guards, `gateway.py` fronts both. Every other module here is what the services share.

    python -m sample_apis.contacts      TOKEN_GUARD_ISSUER  CONTACTS_HOST  CONTACTS_PORT (8001)  CONTACTS_DATABASE
    python -m sample_apis.calendars     TOKEN_GUARD_ISSUER  CALENDARS_HOST  CALENDARS_PORT (8002)  CALENDARS_DATABASE
    python -m sample_apis.gateway       TOKEN_GUARD_ISSUER  GATEWAY_HOST  GATEWAY_PORT (8000)  and both databases

Only TOKEN_GUARD_ISSUER must be set: one or several issuers, separated by spaces.
"""
