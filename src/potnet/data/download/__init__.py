"""Downloads: fetched, resumed, verified."""
