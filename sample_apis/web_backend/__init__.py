"""The app with a backend: the browser never sees a token. Run it: `python -m sample_apis.web_backend`."""
