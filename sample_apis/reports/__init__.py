"""The reports service: Django, an API of its own that calls the other two. Run it: `python -m sample_apis.reports`."""
