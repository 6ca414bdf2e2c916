"""The single-page app, and the small server of its files. Run it: `python -m sample_apis.web`."""
