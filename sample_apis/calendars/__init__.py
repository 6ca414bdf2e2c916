"""The calendars service: Starlette, guarded by the same resource server. Run it: `python -m sample_apis.calendars`."""
