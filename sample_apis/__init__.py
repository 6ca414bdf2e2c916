"""The Organizer: sample APIs that share one resource server, written to be copied.

`organizer.py` is the resource server, `contacts/` (Flask) and `calendars/` (Starlette) are the services that it
guards, `gateway.py` fronts both. `reports/` (Django) is an API of its own that calls the two on behalf of the user.
`authorization_server/` stands in for a hosted authorization server, for development only; `web/` is a single-page app
and `web_backend/` an app with a backend that log in there. `demo/` is the story that scripts/demo tells. Every other
module here is what the services share.

    python -m sample_apis.contacts      TOKEN_GUARD_ISSUER  CONTACTS_HOST  CONTACTS_PORT (8001)  CONTACTS_DATABASE
    python -m sample_apis.calendars     TOKEN_GUARD_ISSUER  CALENDARS_HOST  CALENDARS_PORT (8002)  CALENDARS_DATABASE
    python -m sample_apis.gateway       TOKEN_GUARD_ISSUER  GATEWAY_HOST  GATEWAY_PORT (8000)  and both databases
    python -m sample_apis.reports       TOKEN_GUARD_ISSUER  REPORTS_HOST  REPORTS_PORT (8003)  REPORTS_CLIENT_SECRET
                                        REPORTS_CLIENT_ID (reports-api)  REPORTS_TARGET_AUDIENCE (organize)
                                        REPORTS_CONTACTS_URL and REPORTS_CALENDARS_URL (the addresses above)

    python -m sample_apis.authorization_server --help
    python -m sample_apis.web           WEB_DOMAIN  WEB_HOST  WEB_PORT (8080)  and where the APIs are
    python -m sample_apis.web_backend   WEB_BACKEND_DOMAIN  WEB_BACKEND_HOST  WEB_BACKEND_PORT (8090)

TOKEN_GUARD_ISSUER must be set, and for reports its secret: one or several issuers, separated by spaces. With
CORS_ALLOWED_ORIGINS the pages of those origins may call the services from a browser; by default none may.
"""
