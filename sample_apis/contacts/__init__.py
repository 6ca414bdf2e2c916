"""The contacts service: Flask, guarded by the Organizer's resource server. Run it: `python -m sample_apis.contacts`."""
